package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rockpool.dev/tests/eventually"
	"rockpool.dev/tests/fakeclock"
)

// patientHarness has a link that the test breaks, and counts the writes that arrive.
type patientHarness struct {
	*harness
	server *apiServer
	clock  fakeclock.Clock
	writes atomic.Int32
	bodies chan string // of the writes
}

func newPatientHarness(t *testing.T) *patientHarness {
	p := &patientHarness{clock: fakeclock.New(), bodies: make(chan string, 1000)}
	p.server = newServer(t, true, func(_ http.ResponseWriter, r *http.Request) {
		p.writes.Add(1)
		raw, _ := io.ReadAll(r.Body)
		p.bodies <- string(raw)
	})
	p.harness = newHarness(t, Options{Settings: Settings{Servers: []Server{p.server.asServer()}}, Clock: p.clock})
	return p
}

// put sends a write in the background.
func (p *patientHarness) put(ctx context.Context, patience time.Duration) chan error {
	request := p.request(http.MethodPut, "/", strings.NewReader("body")).WithContext(ctx)
	done := make(chan error, 1)
	go func() {
		response, err := p.Patiently(request, patience)
		if err == nil {
			err = response.Body.Close()
		}
		done <- err
	}()
	return done
}

// after steps the clock until the write is done. It returns how far that was.
func (p *patientHarness) after(done chan error) (took time.Duration, err error) {
	p.t.Helper()
	took = elapsed(p.t, p.clock, "the end of the write", func() bool {
		select {
		case err = <-done:
			return true
		default:
			return false
		}
	})
	return took, err
}

// out breaks the link, and has the clock show that it has been down for some time.
func (p *patientHarness) out(lasted time.Duration) {
	p.t.Helper()
	p.server.link.refuse()
	p.fail(0, errors.New("refused"))
	p.await(Offline)
	p.eventMu.Lock()
	p.since = p.clock.Now().Add(-lasted)
	p.eventMu.Unlock()
}

func TestAWriteWaitsForTheLink(t *testing.T) {
	t.Parallel()
	const patience = 2 * time.Second
	for _, c := range []struct {
		name             string
		lasted, patience time.Duration
		from, to         time.Duration // when the write gets its error
	}{
		{"for as long as it may", 0, patience, patience, patience + 500*time.Millisecond},
		{"as long in an outage that began a while ago", time.Second, patience, patience, patience + 500*time.Millisecond},
		{"not in an outage that has lasted longer", patience, patience, 0, 0},
		{"not without patience", 0, 0, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPatientHarness(t)
			p.out(c.lasted)
			took, err := p.after(p.put(t.Context(), c.patience))
			if !IsLinkError(err) || MayHaveArrived(err) {
				t.Errorf("%v", err)
			}
			if c.to == 0 { // the clock steps while the goroutines run
				c.to = time.Second
			}
			if took < c.from || took > c.to {
				t.Errorf("failed after %s", took)
			}
			if p.patient.Load() != 0 || p.writes.Load() != 0 {
				t.Errorf("%d wait, %d have arrived", p.patient.Load(), p.writes.Load())
			}
		})
	}
}

func TestAWriteThatWaitsIsSentOnce(t *testing.T) {
	t.Parallel()
	p := newPatientHarness(t)
	p.out(0)
	done := p.put(t.Context(), 30*time.Second)
	eventually.True(t, "the write waits", func() bool { return p.patient.Load() == 1 })
	p.server.link.restore()
	if took, err := p.after(done); err != nil || took > 2*time.Second {
		t.Errorf("after %s: %v", took, err)
	}
	if body := <-p.bodies; body != "body" || p.writes.Load() != 1 {
		t.Errorf("%d writes have arrived, with %q", p.writes.Load(), body)
	}
}

func TestAWriteThatMayHaveArrivedIsNotSentAgain(t *testing.T) {
	t.Parallel()
	p := newPatientHarness(t)
	p.server.Config.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		p.writes.Add(1)
		p.server.link.refuse() // which resets the connection
	})
	_, err := p.after(p.put(t.Context(), 30*time.Second))
	if !MayHaveArrived(err) || p.writes.Load() != 1 {
		t.Errorf("%d writes have arrived, %v", p.writes.Load(), err)
	}
}

func TestTheClientEndsTheWaitOfItsWrite(t *testing.T) {
	t.Parallel()
	p := newPatientHarness(t)
	p.out(0)
	ctx, cancel := context.WithCancel(t.Context())
	done := p.put(ctx, 30*time.Second)
	eventually.True(t, "the write waits", func() bool { return p.patient.Load() == 1 })
	cancel()
	if err := eventually.Receive(t, "the end of the write", done); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestOnlySoManyWritesWait(t *testing.T) {
	t.Parallel()
	p := newPatientHarness(t)
	p.out(0)
	p.patient.Store(maxPatient)
	if err := eventually.Receive(t, "the end of the write", p.put(t.Context(), 30*time.Second)); !IsLinkError(err) {
		t.Error(err)
	}
}

// TestWritesSurviveALinkThatFlaps has a client write all the time while the link goes down and comes
// back once a second, for a minute. The default patience is enough. The clock only moves between two
// writes, and while one waits: a test server takes real time.
func TestWritesSurviveALinkThatFlaps(t *testing.T) {
	t.Parallel()
	p := newPatientHarness(t)
	began, down := p.clock.Now(), false
	step := func(d time.Duration) {
		p.clock.Step(d)
		switch before := down; {
		case p.clock.Since(began)/time.Second%2 == 0:
			if down = false; before {
				p.server.link.restore()
			}
		case !before:
			down = true
			p.out(0)
		}
	}
	sent, waited := 0, 0
	for ; p.clock.Since(began) < time.Minute; step(100 * time.Millisecond) {
		sent++
		started := p.clock.Now()
		done := p.put(t.Context(), 2*time.Second)
		eventually.True(t, "the end of the write", func() bool {
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("write %d: %v", sent, err)
				}
				return true
			default:
				if p.patient.Load() > 0 {
					step(10 * time.Millisecond)
				}
				return false
			}
		})
		if p.clock.Since(started) > 0 {
			waited++
		}
	}
	if int(p.writes.Load()) != sent || waited < 20 {
		t.Errorf("%d writes were sent, of which %d have waited; %d have arrived", sent, waited, p.writes.Load())
	}
}
