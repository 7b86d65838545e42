package e2e

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	"sigs.k8s.io/yaml"

	"rockpool.dev/tests/edge"
)

// TestClientsOfCBORAndYAML runs an API server that speaks CBOR, behind its alpha feature gate, and
// client-go with CBOR turned on: a dynamic informer, and a leader that writes its Lease and Events.
func TestClientsOfCBORAndYAML(t *testing.T) {
	t.Parallel()
	other, err := edge.Start(t.Context(), edge.Options{Like: cluster, APIServerArgs: []string{"--feature-gates=CBORServingAndStorage=true"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := other.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Run("a dynamic informer", func(t *testing.T) {
		s := newSiteIn(t, other)
		s.configMap("greeting", "hello")
		p := s.pod(withDebugLog, withCBOR, func(p *corev1.Pod) { p.Spec.Containers[0].Args = []string{"-client=dynamic"} })
		p.sees("present", "greeting", "hello")
		s.configMap("greeting", "hello again")
		p.sees("updated", "greeting", "hello again")
		p.offline()
		p.restart("app")
		p.sees("present", "greeting", "hello again")
		s.configMap("greeting", "good morning")
		p.online()
		p.sees("updated", "greeting", "good morning") // by the watch, which has outlived the link
		if n := strings.Count(mustLogs(t, p, "app"), `"event":"synced"`); n != 2 {
			t.Errorf("the informer synced %d times, want once per start", n)
		}
	})
	t.Run("a leader", func(t *testing.T) {
		o := outage{lasts: 6 * time.Second, duration: 4 * time.Second, renew: 3 * time.Second, retry: 500 * time.Millisecond}
		s := newSiteIn(t, other)
		p := s.leader(map[string]string{"rockpool.dev/offline-leases": "true", "rockpool.dev/offline-events": "true"}, "-content-type=application/cbor", "-tick=1s",
			"-lease=main", "-lease-duration="+o.duration.String(), "-renew-deadline="+o.renew.String(), "-retry-period="+o.retry.String())
		p.sees(`"event":"leading"`)
		s.until("an Event is there", func() bool { return len(s.events()) > 0 })
		p.offline()
		before, events := s.mainLease(), len(s.events())
		o.pass(p)
		s.until("Events are queued", func() bool { return len(s.outbox("true")) > 1 })
		if now := s.mainLease(); now.ResourceVersion != before.ResourceVersion {
			t.Error("the API server was reached")
		}
		p.online()
		s.until("the Lease is renewed", func() bool { return s.mainLease().ResourceVersion != before.ResourceVersion })
		s.until("the Events are delivered", func() bool { return len(s.outbox("true")) == 0 && len(s.events()) > events })
		if text := mustLogs(t, p, "app"); strings.Contains(text, `"stopped"`) || p.restarts("app") > 0 {
			t.Errorf("the leader has stopped:\n%s", text)
		}
	})
	t.Run("answers are made of what is recorded in JSON", func(t *testing.T) {
		s := newSiteIn(t, other)
		s.configMap("greeting", "yes")
		p := s.pod(withoutApp)
		all := "/api/v1/namespaces/" + s.namespace + "/configmaps"
		targets := []string{all, all + "/greeting", "/api/v1/namespaces/" + s.namespace + "/secrets"}
		versions := map[string]any{}
		for _, target := range targets {
			r := p.ask(get(target))[0]
			var o struct{ Metadata map[string]any }
			if err := json.Unmarshal([]byte(r.Body), &o); err != nil || r.Status != 200 {
				t.Fatalf("%s: %d %s", target, r.Status, r.Body)
			}
			versions[target] = o.Metadata["resourceVersion"]
		}
		p.offline()
		for _, target := range targets {
			for accept, read := range map[string]func([]byte, any) error{
				"application/cbor": direct.Unmarshal,
				"application/yaml": func(raw []byte, into any) error { return yaml.Unmarshal(raw, into) },
			} {
				raw, err := other.Client().CoreV1().RESTClient().Get().AbsPath(target).SetHeader("Accept", accept).DoRaw(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				r := p.ask(with("GET", target, map[string]string{"Accept": accept}))[0]
				if r.Status != 200 || r.Headers["Content-Type"] != accept || r.Headers["Cache-Status"] == "" {
					t.Errorf("%s in %s: %d %v %s", target, accept, r.Status, r.Headers, r.Body)
					continue
				}
				body := []byte(r.Body)
				if accept == "application/cbor" {
					if body, err = base64.StdEncoding.DecodeString(r.Body); err != nil {
						t.Fatal(err)
					}
				}
				var want, got map[string]any
				if err := read(raw, &want); err != nil {
					t.Fatal(err)
				}
				if err := read(body, &got); err != nil {
					t.Errorf("%s in %s: %v", target, accept, err)
				}
				if metadata, ok := want["metadata"].(map[string]any); ok { // that of a list moves with the cluster
					metadata["resourceVersion"] = versions[target]
				}
				if len(want) == 0 || !cmp.Equal(want, got) {
					t.Errorf("%s in %s is another one offline (-API server +cache):\n%s", target, accept, cmp.Diff(want, got))
				}
				if accept == "application/cbor" && string(body[:3]) != string(raw[:3]) {
					t.Errorf("%s begins with %x, the API server's with %x", target, body[:3], raw[:3])
				}
			}
		}
	})
}

// withCBOR makes client-go in the app prefer CBOR.
func withCBOR(p *corev1.Pod) {
	p.Spec.Containers[0].Env = append(p.Spec.Containers[0].Env,
		corev1.EnvVar{Name: "KUBE_FEATURE_ClientsAllowCBOR", Value: "true"}, corev1.EnvVar{Name: "KUBE_FEATURE_ClientsPreferCBOR", Value: "true"})
}
