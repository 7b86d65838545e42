package e2e

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"rockpool.dev/tests/bed/link"
	"rockpool.dev/tests/edge"
)

// wakeInterval is the shortest time between two attempts to reach the API server that requests cause.
const wakeInterval = 2 * time.Second

// The build has the race detector and the machine may be busy, so the bounds are wide. The logged
// times are not measurements: see tests/bench.
func TestTheSidecarSoonNoticesThatTheLinkFailsAndReturns(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.configMap("greeting", "hello")
	p := s.pod(withoutApp)
	greeting := s.configMaps() + "/greeting"
	p.kubectl("get", "--raw", s.configMaps())
	s.until("the list is recorded", func() bool { return s.sql("SELECT count(*) FROM v_object WHERE name = 'greeting'") != "0" })
	for _, tt := range []struct {
		name       string
		fail       func() error
		firstBound time.Duration
	}{
		{"refused", func() error { s.Link.Cut(); return nil }, 2 * time.Second},
		{"a black hole that accepts connections", func() error { s.Link.BlackHole(); return nil }, 6 * time.Second},
		{"a black hole that drops SYNs", s.Link.Drop, 6 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := p.in(t)
			p.linkIs("online")
			x := p.poll(5*time.Millisecond, getRequest{Target: greeting})
			defer x.stop()
			cut := time.Now()
			if err := tt.fail(); err != nil {
				t.Log(err) // the link is then a black hole that accepts connections
			}
			first := x.until("a cached answer", time.Time{}, getResponse.cached)
			p.linkIs("offline")
			later := x.until("a later cached answer", time.Now(), getResponse.cached)
			x.until("many later cached answers", later.Ended.Add(time.Second), getResponse.cached)
			restored := time.Now()
			s.Link.Restore()
			back := x.until("the API server's answer", restored, func(f getResponse) bool { return !f.cached() })
			p.linkIs("online")
			x.stop()

			var cached []time.Duration
			for _, f := range x.responses() {
				if f.truncated() && f.Started.Before(cut) {
					continue
				}
				if f.Status != http.StatusOK || !strings.Contains(string(f.Body), "hello") {
					t.Errorf("an answer at %s: %d %s %s", f.Started.Sub(cut), f.Status, f.Error, f.text())
				}
				if f.cached() && f.Started.After(first.Ended) {
					cached = append(cached, f.duration())
				}
			}
			slices.Sort(cached)
			p50, p99 := cached[len(cached)/2], cached[len(cached)*99/100]
			t.Logf("the first cached answer: %s after the link failed; %d later ones: p50 %s, p99 %s, longest %s; the first answer of the API server: %s after the link was back",
				first.Ended.Sub(cut), len(cached), p50, p99, cached[len(cached)-1], back.Ended.Sub(restored))
			if got := first.Ended.Sub(cut); got > tt.firstBound {
				t.Errorf("the first cached answer came after %s, want at most %s", got, tt.firstBound)
			}
			if p50 > 100*time.Millisecond {
				t.Errorf("later answers take %s", p50)
			}
			if got := back.Ended.Sub(restored); got > 2*wakeInterval {
				t.Errorf("the API server answers %s after the link is back, want at most %s", got, 2*wakeInterval)
			}
		})
	}
	t.Run("half open", func(t *testing.T) {
		p := p.in(t)
		p.linkIs("online")
		outages := s.sql("SELECT count(*) FROM link WHERE state = 'offline'")
		x := p.poll(5*time.Millisecond, getRequest{Target: greeting})
		defer x.stop()
		began := time.Now()
		s.Link.HalfOpen()
		after := x.until("an answer over another connection", began, func(f getResponse) bool { return !f.cached() })
		x.stop()
		t.Logf("the connection was replaced after %s", after.Ended.Sub(began))
		for _, f := range x.responses() {
			if f.truncated() && f.Started.Before(began) {
				continue
			}
			if f.Status != http.StatusOK || f.duration() > 6*time.Second {
				t.Errorf("an answer after %s: %d %s", f.duration(), f.Status, f.text())
			}
		}
		if got := s.sql("SELECT count(*) FROM link WHERE state = 'offline'"); got != outages {
			t.Errorf("the link was offline: %s", s.sql("SELECT * FROM v_link"))
		}
	})
	t.Run("one chunk in a hundred is 200 ms late", func(t *testing.T) {
		p := p.in(t)
		p.linkIs("online")
		lossy := link.Shape{Loss: 0.01} // at least 200 ms late
		s.Link.SetShape(lossy, lossy)
		defer s.Link.SetShape(link.Shape{}, link.Shape{})
		x := p.poll(5*time.Millisecond, getRequest{Target: greeting}, getRequest{Target: s.configMaps()})
		defer x.stop()
		late := func(f getResponse) bool { return f.duration() > 150*time.Millisecond }
		x.until("a late answer", time.Time{}, late)
		x.until("answers after it", time.Now().Add(3*time.Second), func(getResponse) bool { return true })
		x.stop()
		cached, held := 0, 0
		for _, f := range x.responses() {
			if f.Status != http.StatusOK || !strings.Contains(string(f.Body), "hello") {
				t.Errorf("an answer: %d %s", f.Status, f.text())
			}
			if f.cached() {
				cached++
			}
			if late(f) {
				held++
			}
		}
		t.Logf("%d answers, %d late, %d from the cache", len(x.responses()), held, cached)
	})
	if t.Failed() {
		return
	}
	rows := s.sql("SELECT count(*) FROM link WHERE state = 'offline'")
	logged := len(regexp.MustCompile(`"msg":"link state changed","from":"[a-z]+","to":"offline"`).FindAllString(mustLogs(t, p, "rockpool-sidecar"), -1))
	if counted := p.metric(`rockpool_link_transitions_total{to="offline"}`); logged != 3 || counted != 3 || rows != "3" {
		t.Errorf("the link was down 3 times: %d lines in the log, %d in the metric, %s rows in the history", logged, counted, rows)
	}
}

// The two addresses lead to one API server, as two gateways do. An address that is down is tried
// every two seconds, so that the test is short.
func TestTheSidecarSwitchesToTheOtherOfTwoLinks(t *testing.T) {
	t.Parallel()
	const another = "203.0.113.10:6444"
	s := newSite(t)
	second := s.linkAt(another, cluster.Address())
	s.configMap("greeting", "hello")
	s.configure("upstream: {retry-interval: 2s, servers: [https://" + edge.PublicAddress + ", https://" + another + "]}\n")
	p := s.configurable()
	p.sees("synced")
	p.linkIs("online")
	x := p.poll(5*time.Millisecond, getRequest{Target: s.configMaps() + "/greeting"}, getRequest{Target: s.configMaps()})
	defer x.stop()
	// answered is how often the sidecar has logged that an address answers.
	answered := func(address string) int {
		return strings.Count(mustLogs(t, p, "rockpool-sidecar"), `"API server answers","server":"https://`+address+`"`)
	}
	steps := []struct {
		name         string
		fail, repair func()
		over         *link.Link // the link for the answers
		broken       string     // the address that is repaired
	}{
		{"the first is refused", s.Link.Cut, s.Link.Restore, second, edge.PublicAddress},
		{"the first is a black hole", s.Link.BlackHole, s.Link.Restore, second, edge.PublicAddress},
		{"the unused second is a black hole too, and nobody asks it", second.BlackHole, second.Restore, s.Link, ""},
		{"the list of addresses changes", func() {
			s.configure("upstream: {retry-interval: 2s, servers: [{url: 'https://" + another + "', tls-server-name: kubernetes}]}\n")
			p.sidecarSays(`changed settings are in effect","keys":["upstream.servers"]`)
		}, func() {}, second, ""},
		{"the removed link is cut", s.Link.Cut, s.Link.Restore, second, ""},
	}
	for _, step := range steps {
		since, carried, times := time.Now(), step.over.Stats().BytesDown, answered(step.broken)
		step.fail()
		first := x.until("an answer after "+step.name, since, func(f getResponse) bool { return f.Status == http.StatusOK && !f.cached() })
		t.Logf("%s: answered after %s", step.name, first.Ended.Sub(since))
		s.configMap("greeting", step.name)
		p.sees("updated", step.name) // the watch works, on whichever link
		s.until(step.name+": bytes come over the other link", func() bool { return step.over.Stats().BytesDown > carried })
		if step.broken != "" {
			s.until(step.name+": it is logged", func() bool {
				return strings.Contains(mustLogs(t, p, "rockpool-sidecar"), `"API server does not answer","server":"https://`+step.broken+`"`)
			})
		}
		step.repair()
		if step.broken != "" {
			s.until(step.name+": it is used again", func() bool { return answered(step.broken) > times })
		}
	}
	x.stop()
	truncated := 0
	for _, f := range x.responses() {
		if f.truncated() {
			truncated++
			continue
		}
		if f.Status != http.StatusOK || f.cached() || f.duration() > 6*time.Second {
			t.Errorf("an answer after %s: %d %v %s", f.duration(), f.Status, f.Headers, f.text())
		}
	}
	if truncated > len(steps) { // one for each fault, as the client sends one request at a time
		t.Errorf("%d truncated answers", truncated)
	}
	if got := s.sql("SELECT count(*) FROM link WHERE state = 'offline'"); got != "0" {
		t.Errorf("the link was offline: %s", s.sql("SELECT * FROM v_link"))
	}
	if n := strings.Count(mustLogs(t, p, "app"), `"event":"synced"`); n != 1 || p.restarts("rockpool-sidecar") != 0 {
		t.Errorf("the informer synced %d times", n)
	}
}
