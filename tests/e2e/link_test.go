package e2e

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/tests/bed/pod"
)

func TestAnInformerSurvivesABadLink(t *testing.T) {
	s := newSite(t)
	s.configMap("greeting", "hello")
	p := s.pod()
	p.sees("synced")
	if r := p.ask(get(s.configMaps()))[0]; r.Status != http.StatusOK {
		t.Fatalf("online: %+v", r)
	}

	t.Run("300 ms each way", func(t *testing.T) {
		p := p.in(t)
		s.Link.Delay(300 * time.Millisecond)
		defer s.Link.Delay(0)
		s.configMap("greeting", "slowly")
		p.sees("updated", "slowly")
		if r := p.ask(get(s.configMaps()))[0]; r.Status != http.StatusOK || r.Headers["Cache-Status"] != "" || r.Seconds < 0.5 {
			t.Errorf("a list: %d after %.2f s, %v", r.Status, r.Seconds, r.Headers)
		}
	})
	t.Run("a black hole", func(t *testing.T) {
		p := p.in(t)
		p.linkIs("online")
		s.Link.BlackHole()
		first := p.ask(get(s.configMaps() + "/greeting"))[0]
		t.Logf("the first answer took %.2f s", first.Seconds)
		if first.Status != http.StatusOK || !strings.Contains(first.Body, "slowly") || first.Seconds > 5 {
			t.Errorf("the first request: %+v, want the cached answer within 5 s", first)
		}
		p.linkIs("offline")
		for _, r := range p.ask(get(s.configMaps()+"/greeting"), get(s.configMaps())) {
			if r.Status != http.StatusOK || r.Seconds > 1 {
				t.Errorf("a later request: %+v, want the cached answer at once", r)
			}
		}
		s.configMap("greeting", "out of the hole")
		p.online()
		p.sees("updated", "out of the hole")
		if r := p.ask(get(s.configMaps()))[0]; r.Status != http.StatusOK || r.Headers["Cache-Status"] != "" {
			t.Errorf("online again: %+v", r)
		}
	})
	t.Run("a restart of the API server", func(t *testing.T) {
		p := p.in(t)
		if err := cluster.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.configMap("greeting", "after the restart")
		p.sees("updated", "after the restart")
	})
	t.Run("an outage longer than the server's memory", func(t *testing.T) { watchesCatchUp(t, p.in(t)) })
	t.Run("300 ms each way after an outage", func(t *testing.T) {
		p := p.in(t)
		s.Link.Delay(300 * time.Millisecond)
		defer s.Link.Delay(0)
		p.offline()
		s.configMap("greeting", "slowly again")
		p.online()
		p.sees("updated", "slowly again")
	})

	if n := strings.Count(mustLogs(t, p, "app"), `"event":"synced"`); n != 1 || p.restarts("app") != 0 {
		t.Errorf("the informer synced %d times and was restarted %d times, want 1 and 0", n, p.restarts("app"))
	}
}

// watchesCatchUp has three open watches during an outage in which the server drops its history:
// that of the informer, one whose stream the test reads, and one of a collection that was never
// listed, for which the sidecar cannot know the client's state.
func watchesCatchUp(t *testing.T, p *testPod) {
	s := p.site
	list := p.python("list").ResourceVersion
	services := strings.Replace(s.configMaps(), "configmaps", "services", 1)
	listed, unlisted := p.stream(s.configMaps()+"?watch=true&resourceVersion="+list), p.stream(services+"?watch=true&resourceVersion="+list)
	s.configMap("greeting", "before the outage")
	p.sees("updated", "before the outage")
	s.service("before")
	s.until("the watches have begun", func() bool {
		return strings.Contains(listed.String(), "before the outage") && strings.Contains(unlisted.String(), `"name":"before"`)
	})

	p.offline()
	s.configMap("greeting", "meanwhile")
	if err := cluster.DropHistory(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, stream := range []*output{listed, unlisted} {
		if got := stream.String(); strings.Contains(got, "ERROR") || strings.Contains(got, "meanwhile") {
			t.Errorf("during the outage: %s", got)
		}
	}
	p.online()
	s.until("the watch gets the missed events", func() bool { return strings.Contains(listed.String(), "meanwhile") })
	p.sees("updated", "meanwhile")
	s.configMap("greeting", "afterwards")
	s.until("the watch continues", func() bool { return strings.Contains(listed.String(), "afterwards") })
	if got := listed.String(); strings.Contains(got, "ERROR") {
		t.Errorf("the watch: %s", got)
	}
	s.until("the watch of the unlisted collection gets 410 Gone", func() bool {
		got := unlisted.String()
		return strings.Contains(got, `"type":"ERROR"`) && strings.Contains(got, `"code":410`)
	})
}

// stream is the answer to a GET that kubectl sends from inside the pod, until the test ends.
func (p *testPod) stream(path string) *output {
	p.site.t.Helper()
	ctx, cancel := context.WithCancel(p.site.ctx)
	stream := &output{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = p.ExecStream(ctx, "shell", pod.ExecOptions{Argv: []string{"/kubectl", "get", "--raw", path}, Stdout: stream, Stderr: stream})
	}()
	p.site.t.Cleanup(func() { cancel(); <-ended })
	return stream
}

// service creates a Service, not over the link.
func (s *site) service(name string) {
	s.t.Helper()
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}}
	if _, err := cluster.Client().CoreV1().Services(s.namespace).Create(s.ctx, service, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// output collects the output of a running command.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
