package e2e

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/tests/bed/pod"
	"rockpool.dev/tests/edge"
)

// A reboot of the node clears the memory of its pods, but not its disk. Offline, the kubelet gives
// a pod the token that it has cached, if any.
func TestAPodStartsAfterARebootWithoutALink(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.configMap("greeting", "hello")
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "planted"}, StringData: map[string]string{"password": "hunter2"}}
	if _, err := cluster.Client().CoreV1().Secrets(s.namespace).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p := s.pod()
	p.sees("synced")
	secrets := "/api/v1/namespaces/" + s.namespace + "/secrets"
	if r := p.ask(get(secrets), get(secrets+"/planted")); r[0].Status != http.StatusOK || r[1].Status != http.StatusOK {
		t.Fatalf("the secret online: %+v", r)
	}
	s.until("the list is recorded", func() bool { return s.sql("SELECT count(*) FROM object WHERE name = 'greeting'") == "1" })
	s.until("the keys are recorded", func() bool { return s.sql("SELECT count(*) FROM fact WHERE key = 'jwks'") == "1" })
	p.offline()
	if r := p.ask(get(secrets))[0]; r.Status != http.StatusOK {
		t.Errorf("the secret offline, before the reboot: %+v", r)
	}
	old := p.token()

	t.Run("the kubelet has a cached token", func(t *testing.T) {
		p = s.started(s.rebooted(p))
		p := p.in(t)
		p.sees("present", "greeting", "hello")
		p.sees("synced")
		for _, r := range p.ask(get(secrets), get(secrets+"/planted")) {
			if r.Status != http.StatusServiceUnavailable || !strings.Contains(r.status(t).Message, "not recorded") {
				t.Errorf("a secret after the reboot: %+v, want 503: it was in memory", r)
			}
		}
		const checked = "rockpool_principal_verifications_total"
		proved, remembered := p.metric(checked+`{result="signature"}`), p.metric(checked+`{result="cached"}`)
		questions := slices.Repeat([]question{get(s.configMaps() + "/greeting")}, 20)
		for _, r := range p.ask(questions...) {
			if r.Status != http.StatusOK {
				t.Errorf("after the reboot: %+v", r)
			}
		}
		proved, remembered = p.metric(checked+`{result="signature"}`)-proved, p.metric(checked+`{result="cached"}`)-remembered
		if proved > 0 || remembered < len(questions) {
			t.Errorf("%d requests with one token: %d signature checks, %d cached results", len(questions), proved, remembered)
		}
	})
	t.Run("the token comes later", func(t *testing.T) {
		s.LateProjections = true
		runner := s.rebooted(p)
		p = &testPod{Runner: runner, site: s, output: edge.NewOutput(runner, "app")}
		s.t.Cleanup(p.end)
		p := p.in(t)
		p.sidecarSays(`"ready"`)
		p.sidecarSays("the service-account directory is not complete yet")
		var said string
		s.until("the sidecar answers", func() bool {
			result, err := p.Exec(t.Context(), "rockpool-sidecar", "/usr/bin/python3", "-c", bare, s.configMaps(), old)
			said = result.Stdout
			return err == nil && result.ExitCode == 0
		})
		if !strings.HasPrefix(said, "503 ") || !strings.Contains(said, "the pod's own token cannot be read") {
			t.Errorf("while the token is missing: %s", said)
		}
		if status, err := p.Status("app"); err != nil || status.Started {
			t.Errorf("the app has started without a token: %+v %v", status, err)
		}
		if err := p.RotateTokens(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := p.WaitRunning(ctx); err != nil {
			t.Fatal(err)
		}
		p.sees("present", "greeting", "hello")
		p.sees("synced")
		if n := p.restarts("rockpool-sidecar"); n != 0 {
			t.Errorf("the sidecar was restarted %d times", n)
		}
		p.online()
		s.configMap("greeting", "the link is back")
		p.sees("updated", "the link is back")
	})
}

// rebooted runs the same pod again after a power loss of its node.
func (s *site) rebooted(p *testPod) *pod.Runner {
	s.t.Helper()
	if err := p.Kill(); err != nil {
		s.t.Fatal(err)
	}
	runner, err := s.Run(s.ctx, p.Pod())
	if err != nil {
		s.t.Fatal(err)
	}
	return runner
}

// bare sends a request to the sidecar without a service-account directory.
const bare = `
import http.client, ssl, sys
conn = http.client.HTTPSConnection("127.0.0.1", 10268, timeout=10, context=ssl._create_unverified_context())
conn.request("GET", sys.argv[1], headers={"Authorization": "Bearer " + sys.argv[2]})
answer = conn.getresponse()
print(answer.status, answer.read().decode())
`
