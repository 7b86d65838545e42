package e2e

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// denyKeys revokes, until the end of the test, the permission of service accounts to read the
// cluster's signing keys.
func (s *site) denyKeys() {
	s.t.Helper()
	const name = "system:service-account-issuer-discovery"
	api := cluster.Client().RbacV1().ClusterRoleBindings()
	binding, err := api.Get(s.ctx, name, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := api.Delete(s.ctx, name, metav1.DeleteOptions{}); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		binding.ResourceVersion, binding.UID = "", ""
		if _, err := api.Create(context.WithoutCancel(s.ctx), binding, metav1.CreateOptions{}); err != nil {
			s.t.Error(err)
		}
	})
	token := s.requestToken("default")
	s.until("the server refuses its keys", func() bool {
		status, _ := s.direct(get("/openid/v1/jwks"), token)
		return status == http.StatusForbidden
	})
}

func TestCallersAreIdentifiedWithoutTheClustersSigningKeys(t *testing.T) {
	s := newSite(t)
	s.denyKeys()
	s.configMap("greeting", "hello")
	other := s.otherAccount()
	p := s.pod()
	p.sees("synced")
	p.sidecarSays("/openid/v1/jwks: status 403; bind the ClusterRole")
	services := "/api/v1/namespaces/" + s.namespace + "/services"
	theirs := map[string]string{"Authorization": "Bearer " + other}
	before := p.token()
	if r := p.ask(get(s.configMaps()), with("GET", services, theirs)); r[0].Status != 200 || r[1].Status != 200 {
		t.Fatalf("online: %+v", r)
	}
	if err := p.RotateTokens(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.until("the app's copy is the new token", func() bool { return p.token() != before })
	unused := s.requestToken("default")
	s.account("stranger")
	part := strings.Split(before, ".")
	p.offline()

	tests := []struct {
		name   string
		ask    question
		status int
		says   string
	}{
		{"the pod's own new token, which was never used", get(s.configMaps()), 200, "hello"},
		{"the pod's old token", with("GET", s.configMaps(), map[string]string{"Authorization": "Bearer " + before}), 200, "hello"},
		{"another account, a list that it has read", with("GET", services, theirs), 200, "ServiceList"},
		{"another account, a list that only the pod's account has read", with("GET", s.configMaps(), theirs), 503, "not recorded"},
		{"a token that was never used", with("GET", s.configMaps(), map[string]string{"Authorization": "Bearer " + unused}), 401, "accepted"},
		{"an account that has never sent a request", with("GET", s.configMaps(), map[string]string{"Authorization": "Bearer " + s.requestToken("stranger")}), 401, "accepted"},
		{"half a signature", with("GET", s.configMaps(), map[string]string{"Authorization": "Bearer " + before[:len(before)-len(part[2])/2]}), 401, "identified"},
		{"no token", with("GET", s.configMaps(), map[string]string{"Authorization": ""}), 401, "no bearer token"},
	}
	for _, when := range []string{"offline", "offline, after a restart of the sidecar"} {
		questions := make([]question, len(tests))
		for i, tt := range tests {
			questions[i] = tt.ask
		}
		for i, r := range p.ask(questions...) {
			if tt := tests[i]; r.Status != tt.status || !strings.Contains(r.Body, tt.says) {
				t.Errorf("%s: %s: %d %s, want %d and %q", when, tt.name, r.Status, r.Body, tt.status, tt.says)
			}
		}
		p.restart("rockpool-sidecar")
	}
	disk := s.disk()
	if !bytes.Contains(disk, []byte("system:serviceaccount:"+s.namespace+":other")) {
		t.Error("the disk does not have the accepted tokens, so this test shows nothing")
	}
	for _, token := range []string{before, other, p.token()} {
		for part := range strings.SplitSeq(token, ".") {
			if bytes.Contains(disk, []byte(part)) {
				t.Error("a part of a token is on the disk")
			}
		}
	}
}
