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

func TestOneInformerOverABadLink(t *testing.T) {
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
	t.Run("an outage longer than the server's memory", func(t *testing.T) { goneIsMended(t, p.in(t)) })
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
		t.Errorf("the informer synced %d times and was restarted %d times, want once and never", n, p.restarts("app"))
	}
}

// goneIsMended has three watches open over an outage in which the server forgets where
// they were: the informer's, one whose stream the test sees, and one of what nobody has
// listed, of which the sidecar cannot know what its client has.
func goneIsMended(t *testing.T, p *testPod) {
	s := p.site
	list := p.python("list").ResourceVersion
	services := strings.Replace(s.configMaps(), "configmaps", "services", 1)
	known, unknown := p.stream(s.configMaps()+"?watch=true&resourceVersion="+list), p.stream(services+"?watch=true&resourceVersion="+list)
	s.configMap("greeting", "before the outage")
	p.sees("updated", "before the outage")
	s.service("before")
	s.until("the watches have begun", func() bool {
		return strings.Contains(known.String(), "before the outage") && strings.Contains(unknown.String(), `"name":"before"`)
	})

	p.offline()
	s.configMap("greeting", "meanwhile")
	if err := cluster.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The server's own memory has to go, too.
	if err := cluster.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, stream := range []*output{known, unknown} {
		if got := stream.String(); strings.Contains(got, "ERROR") || strings.Contains(got, "meanwhile") {
			t.Errorf("during the outage: %s", got)
		}
	}
	p.online()
	s.until("the watch is told what it has missed", func() bool { return strings.Contains(known.String(), "meanwhile") })
	p.sees("updated", "meanwhile")
	s.configMap("greeting", "afterwards")
	s.until("the watch goes on", func() bool { return strings.Contains(known.String(), "afterwards") })
	if got := known.String(); strings.Contains(got, "ERROR") {
		t.Errorf("the watch: %s", got)
	}
	s.until("the watch of what is not known is told that its version is gone", func() bool {
		got := unknown.String()
		return strings.Contains(got, `"type":"ERROR"`) && strings.Contains(got, `"code":410`)
	})
}

// stream is what a GET that kubectl sends from inside the pod brings, until the test ends.
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

// service makes a Service, past the link.
func (s *site) service(name string) {
	s.t.Helper()
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}}
	if _, err := cluster.Client().CoreV1().Services(s.namespace).Create(s.ctx, service, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// output collects what a command says while it runs.
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
