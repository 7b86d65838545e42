package upstream

import (
	"errors"
	"net/http"
	"net/url"
	"testing"
	"time"

	"rockpool.dev/tests/eventually"
	"rockpool.dev/tests/fakeclock"
)

// TestTheLastResortIsNotAskedWhileAnotherIsUp also says when it is.
func TestTheLastResortIsNotAskedWhileAnotherIsUp(t *testing.T) {
	t.Parallel()
	first, last := newServer(t, true, answerName("1")), newServer(t, true, answerName("last"))
	entry := last.asServer()
	entry.LastResort = true
	last.link.blackhole()
	options := fastOptions(first.asServer(), entry)
	options.ProbeInterval = 5 * time.Millisecond
	options.ConnectTimeout = time.Second
	r := newHarness(t, options).run()
	for range 30 {
		if got := r.text(http.MethodGet, "/"); got != "1" {
			t.Errorf("got %q", got)
		}
	}
	if last.link.dials() != 0 {
		t.Errorf("%d connections to the last resort", last.link.dials())
	}
	first.link.refuse()
	eventually.True(t, "the first to be down", func() bool {
		_, err := r.RoundTrip(r.request(http.MethodGet, "/", nil))
		return err != nil && r.address(0).verdict() == Down
	})
	r.await(Offline)
	last.link.restore()
	r.await(Online)
	if got := r.text(http.MethodGet, "/"); got != "last" {
		t.Errorf("got %q", got)
	}
	first.link.restore()
	eventually.True(t, "the first to be used again", func() bool { return r.text(http.MethodGet, "/") == "1" })
	for _, line := range r.logs.FilterField(r.address(1).field()).All() {
		if line.Level.String() != "info" {
			t.Errorf("the last resort is logged as %s: %s", line.Level, line.Message)
		}
	}
}

// Nobody asks after the first address has failed.
func TestTheLastResortIsTriedOnceTheOthersAreDown(t *testing.T) {
	t.Parallel()
	for name, works := range map[string]bool{"it answers": true, "it does not answer": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, last := newServer(t, true, answerName("1")), newServer(t, true, answerName("last"))
			entry := last.asServer()
			entry.LastResort = true
			want := Online
			if !works {
				last.link.refuse()
				want = Offline
			}
			r := newHarness(t, fastOptions(first.asServer(), entry)).run()
			if got := r.text(http.MethodGet, "/"); got != "1" {
				t.Errorf("got %q", got)
			}
			first.link.refuse()
			eventually.True(t, "its connection to end", func() bool { return len(r.address(0).all()) == 0 })
			r.address(0).reach()
			eventually.True(t, "the last resort to be tried", func() bool {
				return r.State() == want && last.link.dials() > 0 == works
			})
		})
	}
}

func TestTheLastResortKeepsTheLinkSuspectUntilItFails(t *testing.T) {
	parse := func(host string, last bool) Server {
		return Server{URL: &url.URL{Scheme: "https", Host: host}, LastResort: last}
	}
	options := fastOptions(parse("a", false), parse("z", true))
	options.Clock = fakeclock.New()
	r := newHarness(t, options)
	for _, step := range []struct {
		address int
		err     error
		want    State
	}{{0, errors.New("no"), Suspect}, {1, errors.New("no"), Offline}, {0, nil, Online}, {0, errors.New("no"), Offline}} {
		if step.err == nil {
			r.address(step.address).heard.advance(r.clock.Now())
			r.address(step.address).dialed(nil)
		} else {
			r.fail(step.address, step.err)
		}
		if r.State() != step.want {
			t.Errorf("%+v: %s", step, r.State())
		}
	}
}

func TestAnInClusterAddressAloneWorks(t *testing.T) {
	t.Parallel()
	server := newServer(t, true, respond("ok"))
	entry := server.asServer()
	entry.LastResort = true
	r := newHarness(t, fastOptions(entry)).run()
	if got := r.text(http.MethodGet, "/"); got != "ok" {
		t.Errorf("got %q", got)
	}
	server.link.refuse()
	r.try("/")
	r.await(Offline)
	server.link.restore()
	r.await(Online)
}
