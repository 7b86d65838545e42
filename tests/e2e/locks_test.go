package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const lockAnnotation = "control-plane.alpha.kubernetes.io/leader"

// allowLocks lets the pods write locks, in ConfigMaps or Endpoints.
func (s *site) allowLocks(kind string) {
	s.allow(rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{kind}, Verbs: []string{"get", "list", "watch", "create", "update", "patch"}})
	if kind == "endpoints" { // to write addresses into them
		s.allow(rbacv1.PolicyRule{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices/restricted"}, Verbs: []string{"create"}})
	}
}

// lockObject returns the metadata of an object with a lock, as the API server has it.
func (s *site) lockObject(kind, name string) metav1.ObjectMeta {
	s.t.Helper()
	raw, err := cluster.Client().CoreV1().RESTClient().Get().Namespace(s.namespace).Resource(kind).Name(name).DoRaw(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	var o metav1.PartialObjectMetadata
	if err := json.Unmarshal(raw, &o); err != nil {
		s.t.Fatal(err)
	}
	return o.ObjectMeta
}

// TestALeaderKeepsALockInAnAnnotationThroughAnOutage runs client-go's leader election with the locks
// that it had until 0.24.
func TestALeaderKeepsALockInAnAnnotationThroughAnOutage(t *testing.T) {
	o := outage{lasts: 8 * time.Second, duration: 4 * time.Second, renew: 3 * time.Second, retry: 500 * time.Millisecond}
	for _, tt := range []struct{ kind, contentType string }{{"configmaps", ""}, {"endpoints", "application/json"}} {
		t.Run(tt.kind, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.allowLocks(tt.kind)
			p := s.leader(map[string]string{"rockpool.dev/offline-election-annotations": "true"}, "-lease=main", "-lock="+tt.kind, "-content-type="+tt.contentType,
				"-lease-duration="+o.duration.String(), "-renew-deadline="+o.renew.String(), "-retry-period="+o.retry.String())
			p.sees(`"event":"leading"`)
			p.offline()
			before := s.lockObject(tt.kind, "main")
			o.pass(p)
			if now := s.lockObject(tt.kind, "main"); now.ResourceVersion != before.ResourceVersion {
				t.Error("the API server was reached")
			}
			p.online()
			s.until("the API server's lock is renewed", func() bool { return s.lockObject(tt.kind, "main").ResourceVersion != before.ResourceVersion })
			if record := s.lockObject(tt.kind, "main").Annotations[lockAnnotation]; !strings.Contains(record, `"edge"`) || !strings.Contains(record, `"leaderTransitions":0`) {
				t.Errorf("the lock: %s", record)
			}
			if text := mustLogs(t, p, "app"); strings.Contains(text, `"stopped"`) || p.restarts("app") > 0 {
				t.Errorf("the leader has stopped:\n%s", text)
			}
		})
	}
	t.Run("not without the annotation", func(t *testing.T) {
		t.Parallel()
		s := newSite(t)
		s.allowLocks("configmaps")
		p := s.leader(keepsLeases, "-lease=main", "-lock=configmaps",
			"-lease-duration="+o.duration.String(), "-renew-deadline="+o.renew.String(), "-retry-period="+o.retry.String())
		p.sees(`"event":"leading"`)
		p.offline()
		p.sees(`"event":"stopped"`)
	})
}

// TestPatroniKeepsItsLeaderLock sends what Patroni sends: a strategic merge patch of its own
// annotations, at the last resourceVersion.
func TestPatroniKeepsItsLeaderLock(t *testing.T) {
	for _, kind := range []string{"configmaps", "endpoints"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.allowLocks(kind)
			p := s.pod(withoutApp, func(p *corev1.Pod) { p.Annotations["rockpool.dev/offline-election-annotations"] = "true" })
			all := "/api/v1/namespaces/" + s.namespace + "/" + kind
			write := func(method, target string, body any) reply {
				t.Helper()
				raw, err := json.Marshal(body)
				if err != nil {
					t.Fatal(err)
				}
				contentType := "application/json"
				if method == "PATCH" {
					contentType = "application/strategic-merge-patch+json"
				}
				q := with(method, target, map[string]string{"Content-Type": contentType})
				q.Body = string(raw)
				return p.ask(q)[0]
			}
			lock := func(leader any, version string, n int) map[string]any {
				metadata := map[string]any{
					"name": "batman", "namespace": s.namespace, "labels": map[string]any{"cluster-name": "batman"},
					"annotations": map[string]any{"leader": leader, "ttl": "3600", "transitions": "0", "acquireTime": "2024-01-01T00:00:00.5+00:00",
						"renewTime": fmt.Sprintf("2024-01-01T00:00:%02d.5+00:00", n), "optime": fmt.Sprint(67108864 + n), "slots": nil},
				}
				if version != "" {
					metadata["resourceVersion"] = version
				}
				return map[string]any{"metadata": metadata}
			}
			created := lock("batman-0", "", 0)
			delete(created["metadata"].(map[string]any)["annotations"].(map[string]any), "slots")
			if kind == "endpoints" {
				created["subsets"] = []any{map[string]any{"addresses": []any{map[string]any{"ip": "10.0.0.1"}}, "ports": []any{map[string]any{"port": 5432}}}}
			}
			if r := write("POST", all, created); r.Status != 201 {
				t.Fatalf("%d %s", r.Status, r.Body)
			}
			version := s.lockObject(kind, "batman").ResourceVersion
			if r := write("PATCH", all+"/batman", lock("batman-0", version, 1)); r.Status != 200 {
				t.Fatalf("%d %s", r.Status, r.Body)
			}
			version = s.lockObject(kind, "batman").ResourceVersion
			p.offline()
			if r := write("PATCH", all+"/batman", lock("batman-0", version, 2)); r.Status != 200 || !strings.Contains(r.Body, "00:00:02.5") {
				t.Errorf("a renewal: %d %s", r.Status, r.Body)
			}
			if r := p.ask(get(all + "/batman"))[0]; r.Status != 200 || !strings.Contains(r.Body, "00:00:02.5") {
				t.Errorf("GET: %d %s", r.Status, r.Body)
			}
			more := lock("batman-0", version, 3)
			more["metadata"].(map[string]any)["labels"] = map[string]any{"cluster-name": "robin"}
			moved := lock("batman-0", version, 3)
			moved["subsets"] = []any{}
			for name, body := range map[string]any{"by another member": lock("batman-1", version, 3), "of a label": more, "of the addresses": moved} {
				if r := write("PATCH", all+"/batman", body); r.Status != 503 {
					t.Errorf("a patch %s: %d %s", name, r.Status, r.Body)
				}
			}
			if r := write("PATCH", all+"/batman", lock("batman-0", version+"1", 3)); r.Status != 409 {
				t.Errorf("a patch of another version: %d %s", r.Status, r.Body)
			}
			if r := write("POST", all, map[string]any{"metadata": map[string]any{"name": "robin"}}); r.Status != 503 {
				t.Errorf("a creation: %d %s", r.Status, r.Body)
			}
			p.online()
			if r := write("PATCH", all+"/batman", lock("batman-0", version, 4)); r.Status != 200 {
				t.Errorf("a renewal after the outage: %d %s", r.Status, r.Body)
			}
			// Somebody else takes the lock while the link is down.
			version = s.lockObject(kind, "batman").ResourceVersion
			p.offline()
			if r := write("PATCH", all+"/batman", lock("batman-0", version, 5)); r.Status != 200 {
				t.Errorf("a renewal: %d %s", r.Status, r.Body)
			}
			taken := []byte(`{"metadata":{"annotations":{"leader":"batman-1"}}}`)
			if err := cluster.Client().CoreV1().RESTClient().Patch("application/merge-patch+json").Namespace(s.namespace).Resource(kind).Name("batman").Body(taken).Do(s.ctx).Error(); err != nil {
				t.Fatal(err)
			}
			p.online()
			if r := write("PATCH", all+"/batman", lock("batman-0", version, 6)); r.Status != 409 {
				t.Errorf("a renewal of a lock that was taken: %d %s", r.Status, r.Body)
			}
			if holder := s.lockObject(kind, "batman").Annotations["leader"]; holder != "batman-1" {
				t.Errorf("the lock is held by %s", holder)
			}
			p.offline()
			if r := write("PATCH", all+"/batman", lock("batman-0", version, 7)); r.Status != 503 {
				t.Errorf("a lost lock is renewed: %d %s", r.Status, r.Body)
			}
		})
	}
}

func TestATokenIsGivenAgainWhileTheLinkIsDown(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.allow(rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, Verbs: []string{"create"}})
	p := s.pod(withoutApp, func(p *corev1.Pod) {
		p.Annotations["rockpool.dev/offline-tokens"], p.Annotations["rockpool.dev/log-level"] = "true", "debug"
	})
	request := func(account, audience, accept string) question {
		q := with("POST", "/api/v1/namespaces/"+s.namespace+"/serviceaccounts/"+account+"/token", map[string]string{"Content-Type": "application/json", "Accept": accept})
		q.Body = `{"spec":{"audiences":["` + audience + `"],"expirationSeconds":3600}}`
		return q
	}
	issued := func(r reply) string {
		t.Helper()
		var o authenticationv1.TokenRequest
		if err := json.Unmarshal([]byte(r.Body), &o); err != nil || r.Status != 201 || o.Status.Token == "" {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
		return o.Status.Token
	}
	last := issued(p.ask(request("default", "vault", acceptJSON), request("default", "vault", acceptJSON))[1])
	p.offline()
	again := p.ask(request("default", "vault", acceptJSON))[0]
	if issued(again) != last || again.Headers["Cache-Status"] == "" {
		t.Errorf("another token is given: %v", again.Headers)
	}
	if r := p.ask(request("default", "vault", acceptProtobuf))[0]; r.Status != 201 || r.Headers["Content-Type"] != acceptProtobuf {
		t.Errorf("in protobuf: %d %s", r.Status, r.Body)
	}
	stranger := request("default", "vault", acceptJSON)
	delete(stranger.Headers, "Authorization")
	for _, tt := range []struct {
		name string
		q    question
		code int
	}{
		{"another audience", request("default", "bank", acceptJSON), 503},
		{"another service account", request("other", "vault", acceptJSON), 503},
		{"without a token", stranger, 401},
	} {
		if r := p.ask(tt.q)[0]; r.Status != tt.code || strings.Contains(r.Body, last) {
			t.Errorf("%s: %d %s", tt.name, r.Status, r.Body)
		}
	}
	private := map[string][]byte{"the issued token": []byte(last), "its signature": []byte(last[strings.LastIndex(last, ".")+1:])}
	absent(t, private, "the sidecar's log", []byte(mustLogs(t, p, "rockpool-sidecar")))
	absent(t, private, "the disk", s.disk())
	p.kill()
	if r := p.ask(request("default", "vault", acceptJSON))[0]; r.Status != 503 {
		t.Errorf("after a restart of the sidecar: %d %s", r.Status, r.Body)
	}
	p.online()
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: last, Audiences: []string{"vault"}}}
	review, err := cluster.Client().AuthenticationV1().TokenReviews().Create(s.ctx, review, metav1.CreateOptions{})
	if err != nil || !review.Status.Authenticated {
		t.Errorf("the token is not valid: %+v, %v", review.Status, err)
	}
}
