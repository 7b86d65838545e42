package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestTheContract(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.configMap("greeting", "hello")
	other := s.otherAccount()
	p := s.pod()
	p.sees("synced")

	t.Run("online, every refusal is the server's own", func(t *testing.T) { refusalsOnline(t, p.in(t)) })
	t.Run("online, the cache does not replace a revoked permission", func(t *testing.T) {
		p := p.in(t)
		if r := p.ask(get("/api/v1/namespaces/" + s.namespace + "/events"))[0]; r.Status != http.StatusOK {
			t.Fatalf("before the permission is revoked: %+v", r)
		}
		s.revoke("events")
		p.site.until("the server refuses", func() bool {
			r := p.ask(get("/api/v1/namespaces/" + s.namespace + "/events"))[0]
			return r.Status == http.StatusForbidden && strings.Contains(r.Body, `cannot list resource \"events\"`)
		})
	})
	t.Run("online, the port is not a forward proxy", func(t *testing.T) { noForwardProxy(t, p.in(t)) })
	t.Run("the port speaks only TLS, with the pod's own certificate", func(t *testing.T) { onlyTLS(t, p.in(t)) })
	theirs := with("GET", "/api/v1/namespaces/"+s.namespace+"/services", map[string]string{"Authorization": "Bearer " + other})
	for _, r := range p.ask(get(s.configMaps()), theirs) {
		if r.Status != http.StatusOK {
			t.Fatalf("a request to record: %+v", r)
		}
	}

	p.offline()
	t.Run("offline, callers must prove their identity", func(t *testing.T) { authentication(t, p.in(t)) })
	t.Run("offline, each service account has its own cache", func(t *testing.T) {
		services := "/api/v1/namespaces/" + s.namespace + "/services"
		theirs := map[string]string{"Authorization": "Bearer " + other}
		p := p.in(t)
		for i, r := range p.ask(with("GET", services, theirs), with("GET", s.configMaps(), theirs), with("GET", s.configMaps()+"/greeting", theirs), get(s.configMaps()), get(services)) {
			if want := []int{200, 503, 503, 200, 503}[i]; r.Status != want || (want == 503 && strings.Contains(r.Body, "hello")) {
				t.Errorf("request %d: %+v, want %d", i, r, want)
			}
		}
		result := p.run("/kubectl", "--server=https://127.0.0.1:10268", "--certificate-authority=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
			"--token="+other, "get", "--raw", s.configMaps())
		if result.ExitCode == 0 || result.Stdout != "" || !strings.Contains(result.Stderr, "not recorded") {
			t.Errorf("kubectl with the other account's token: %+v", result)
		}
	})
	t.Run("offline, absent is not unknown and no write is faked", func(t *testing.T) { offlineAnswers(t, p.in(t)) })
	t.Run("offline, the port is not a forward proxy", func(t *testing.T) { noForwardProxy(t, p.in(t)) })
}

// otherAccount creates a service account with the permissions of the default one, and returns a
// token of it.
func (s *site) otherAccount() string {
	s.t.Helper()
	s.account("other")
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "other"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "app"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "other", Namespace: s.namespace}},
	}
	if _, err := cluster.Client().RbacV1().RoleBindings(s.namespace).Create(s.ctx, binding, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	return s.requestToken("other")
}

// account creates a service account.
func (s *site) account(name string) {
	s.t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := cluster.Client().CoreV1().ServiceAccounts(s.namespace).Create(s.ctx, account, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// refusalsOnline compares the API server's answers with those through the sidecar.
func refusalsOnline(t *testing.T, p *testPod) {
	s := p.site
	body := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"greeting","resourceVersion":"1"}}`
	questions := []question{
		get("/api/v1/nodes"),
		get("/api/v1/namespaces/kube-system/configmaps"),
		get(s.configMaps() + "/nope"),
		get("/api/v1/namespaces/" + s.namespace + "/nonsense"),
		get("/nowhere"),
		get(s.configMaps() + "?limit=many"),
		get(s.configMaps() + "?continue=nonsense"),
		with("HEAD", s.configMaps(), nil),
		with("GET", s.configMaps(), map[string]string{"Authorization": "Bearer nonsense"}),
		with("GET", s.configMaps(), map[string]string{"Authorization": ""}),
		with("GET", s.configMaps(), map[string]string{"Impersonate-User": "admin"}),
		with("GET", s.configMaps(), map[string]string{"Accept": "image/png"}),
		{Method: "POST", Target: s.configMaps(), Headers: get("").Headers, Body: body},
		{Method: "PUT", Target: s.configMaps() + "/greeting", Headers: get("").Headers, Body: body},
		{Method: "POST", Target: s.configMaps(), Headers: get("").Headers, Body: strings.Replace(body, `"greeting"`, `"No Name"`, 1)},
		{Method: "POST", Target: s.configMaps(), Headers: get("").Headers, Body: "{"},
	}
	seen, token := map[int]bool{}, p.token()
	for i, r := range p.ask(questions...) {
		q := questions[i]
		status, text := s.direct(q, token)
		seen[status] = true
		if r.Status != status || r.Body != text {
			t.Errorf("%s %s %v: %d %s\nwant the server's %d %s", q.Method, q.Target, q.Headers, r.Status, r.Body, status, text)
		}
	}
	for _, status := range []int{400, 401, 403, 404, 406, 409, 422} {
		if !seen[status] {
			t.Errorf("no request of this table gets a %d", status)
		}
	}
}

// direct sends a question to the API server itself.
func (s *site) direct(q question, token string) (int, string) {
	s.t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cluster.CA())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(s.ctx, q.Method, "https://"+cluster.Address()+q.Target, strings.NewReader(q.Body))
	if err != nil {
		s.t.Fatal(err)
	}
	for k, v := range q.Headers {
		req.Header.Set(k, strings.ReplaceAll(v, "{token}", token))
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// offlineAnswers checks which requests the cache answers.
func offlineAnswers(t *testing.T, p *testPod) {
	s := p.site
	own := "/api/v1/namespaces/" + s.namespace
	tests := []struct {
		name   string
		ask    question
		status int
		says   string
	}{
		{"a list that was recorded", get(s.configMaps()), 200, `"hello"`},
		{"a part of it", get(s.configMaps() + "?labelSelector=app%3Dgreeting"), 200, `"hello"`},
		{"an object in it", get(s.configMaps() + "/greeting"), 200, `"hello"`},
		{"an object that is not in a recorded list", get(s.configMaps() + "/nope"), 404, `configmaps \"nope\" not found`},
		{"a list that was not recorded", get(own + "/services"), 503, "not recorded"},
		{"an object that was not recorded", get(own + "/services/kubernetes"), 503, "not recorded"},
		{"a list wider than what was recorded", get("/api/v1/configmaps"), 503, "not recorded"},
		{"another namespace", get("/api/v1/namespaces/default/configmaps/nope"), 503, "not recorded"},
		{"a secret", get(own + "/secrets/nope"), 503, "not recorded"},
		{"a subresource", get(s.configMaps() + "/greeting/status"), 503, "not recorded"},
		{"another version of the API", get("/api/v2/namespaces/" + s.namespace + "/configmaps"), 503, "not recorded"},
		{"a path that does not exist", get("/nowhere"), 503, "not recorded"},
		{"a state newer than what was recorded", get(s.configMaps() + "?resourceVersion=99999999"), 504, "Too large resource version"},
		{"an impersonated user", with("GET", s.configMaps(), map[string]string{"Impersonate-User": "admin"}), 503, "impersonation"},
		{"an impersonated group", with("GET", s.configMaps(), map[string]string{"Impersonate-Group": "system:masters"}), 503, "impersonation"},
		{"creation", question{Method: "POST", Target: s.configMaps(), Headers: get("").Headers, Body: `{}`}, 503, "nothing is written"},
		{"an update", question{Method: "PUT", Target: s.configMaps() + "/greeting", Headers: get("").Headers, Body: `{}`}, 503, "nothing is written"},
		{"a patch", question{Method: "PATCH", Target: s.configMaps() + "/greeting", Headers: get("").Headers, Body: `{}`}, 503, "nothing is written"},
		{"a deletion", with("DELETE", s.configMaps()+"/greeting", nil), 503, "nothing is written"},
		{"a deletion of all", with("DELETE", s.configMaps(), nil), 503, "nothing is written"},
		{"an upgrade", with("POST", own+"/pods/web/exec?command=sh&stdout=1", map[string]string{
			"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
		}), 503, "the link to the API server is down"},
	}
	questions := make([]question, len(tests))
	for i, tt := range tests {
		questions[i] = tt.ask
	}
	for i, r := range p.ask(questions...) {
		tt := tests[i]
		if r.Status != tt.status || !strings.Contains(r.Body, tt.says) {
			t.Errorf("%s: %d %s, want %d and %q", tt.name, r.Status, r.Body, tt.status, tt.says)
		}
		if tt.status != 200 {
			r.status(t)
		} else if !strings.HasPrefix(r.Headers["Cache-Status"], "rockpool; hit") || r.Headers["Age"] == "" {
			t.Errorf("%s has no header of the cache: %v", tt.name, r.Headers)
		}
	}
	heads := p.ask(with("HEAD", s.configMaps()+"/greeting", nil), with("HEAD", s.configMaps()+"/nope", nil), with("HEAD", own+"/services", nil),
		with("HEAD", s.configMaps()+"/greeting", map[string]string{"Authorization": ""}))
	for i, r := range heads {
		if want := []int{405, 405, 405, 401}[i]; r.Body != "" || r.Status != want {
			t.Errorf("HEAD %d: %d %q, want %d without a body", i, r.Status, r.Body, want)
		}
	}
	if _, err := cluster.Client().CoreV1().ConfigMaps(s.namespace).Get(s.ctx, "greeting", metav1.GetOptions{}); err != nil {
		t.Errorf("the object of the refused DELETE: %v", err)
	}
}
