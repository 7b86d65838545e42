package e2e

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"rockpool.dev/tests/bed"
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
	t.Run("an outage longer than the server's memory", func(t *testing.T) { goneIsPassedOn(t, p.in(t)) })
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

// goneIsPassedOn has two watches open over an outage in which the server forgets
// where they were: the informer's, and one whose stream the test sees.
func goneIsPassedOn(t *testing.T, p *pod) {
	s := p.site
	list := p.python("list").ResourceVersion
	ctx, cancel := context.WithCancel(t.Context())
	var stream output
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = p.ExecStream(ctx, "shell", bed.ExecOptions{
			Argv: []string{"/kubectl", "get", "--raw", s.configMaps() + "?watch=true&resourceVersion=" + list}, Stdout: &stream, Stderr: &stream,
		})
	}()
	defer func() { cancel(); <-ended }()
	s.configMap("greeting", "before the outage")
	p.sees("updated", "before the outage")
	s.until("the watch has begun", func() bool { return strings.Contains(stream.String(), "before the outage") })

	p.offline()
	s.configMap("greeting", "meanwhile")
	if err := cluster.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The server's own memory has to go, too.
	if err := cluster.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := stream.String(); strings.Contains(got, "ERROR") || strings.Contains(got, "meanwhile") {
		t.Errorf("during the outage: %s", got)
	}
	p.online()
	s.until("the watch is told that its version is gone", func() bool {
		got := stream.String()
		return strings.Contains(got, `"type":"ERROR"`) && strings.Contains(got, `"code":410`)
	})
	p.sees("updated", "meanwhile")
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
