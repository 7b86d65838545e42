package upstream

import (
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rockpool.dev/tests/eventually"
	"rockpool.dev/tests/fakeclock"
)

func TestOrderOfAddresses(t *testing.T) {
	var servers []Server
	for _, name := range []string{"a", "b", "c", "z"} {
		servers = append(servers, Server{URL: &url.URL{Scheme: "https", Host: name}, LastResort: name == "z"})
	}
	failure := errors.New("no")
	ready := func(x *address, is bool) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.ready = is
	}
	steps := []struct {
		name                 string
		do                   func(a, b, c, z *address)
		priority, roundRobin string // of three requests
	}{
		{"all are healthy", func(_, _, _, _ *address) {}, "abcz abcz abcz", "abcz bcaz cabz"},
		{"one that is not ready comes after the others", func(_, b, _, _ *address) { ready(b, false) }, "acbz acbz acbz", "acbz cabz acbz"},
		{"one that is down is not tried", func(a, _, _, _ *address) { failAddress(a, failure) }, "cbz cbz cbz", "cbz cbz cbz"},
		{"the last resort comes after those that are not ready", func(_, _, c, _ *address) { ready(c, false) }, "bcz bcz bcz", "bcz cbz bcz"},
		{"the last resort is not tried either when it is down", func(_, _, _, z *address) { failAddress(z, failure) }, "bc bc bc", "bc cb bc"},
		{"all that are reached and ready return to their places", func(a, b, c, z *address) {
			for _, each := range []*address{a, b, c, z} {
				each.dialed(nil)
				ready(each, true)
			}
		}, "abcz abcz abcz", "abcz bcaz cabz"},
		{"only the last resort is left", func(a, b, c, _ *address) {
			for _, each := range []*address{a, b, c} {
				failAddress(each, failure)
			}
		}, "z z z", "z z z"},
	}
	for mode, want := range map[Mode]func(i int) string{
		Priority:   func(i int) string { return steps[i].priority },
		RoundRobin: func(i int) string { return steps[i].roundRobin },
	} {
		options := fastOptions(servers...)
		options.Mode = mode
		options.Clock = fakeclock.New()
		r := newHarness(t, options)
		for i, s := range steps {
			s.do(r.address(0), r.address(1), r.address(2), r.address(3))
			var got []string
			for turn := range uint64(3) {
				order, tried := "", map[*address]int{}
				for a := r.plan.Load().next(turn, tried); a != nil; a = r.plan.Load().next(turn, tried) {
					order += a.server.URL.Host
					tried[a] = attemptsEach
				}
				got = append(got, order)
			}
			if strings.Join(got, " ") != want(i) {
				t.Errorf("mode %d, %s: %v, want %s", mode, s.name, got, want(i))
			}
		}
	}
}

func TestRoundRobinSharesRequests(t *testing.T) {
	first, second, last := newServer(t, true, answerName("1")), newServer(t, true, answerName("2")), newServer(t, true, answerName("3"))
	entry := last.asServer()
	entry.LastResort = true
	options := fastOptions(first.asServer(), second.asServer(), entry)
	options.Mode = RoundRobin
	r := newHarness(t, options).run()
	count := func() map[string]int {
		answers := map[string]int{}
		for range 20 {
			answers[r.text(http.MethodGet, "/")]++
		}
		return answers
	}
	if diff := cmp.Diff(map[string]int{"1": 10, "2": 10}, count()); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}
	first.link.refuse()
	if diff := cmp.Diff(map[string]int{"2": 20}, count()); diff != "" {
		t.Errorf("without the first (-want +got):\n%s", diff)
	}
	second.link.refuse()
	if diff := cmp.Diff(map[string]int{"3": 20}, count()); diff != "" {
		t.Errorf("without both (-want +got):\n%s", diff)
	}
	first.link.restore()
	eventually.True(t, "the first to be used again", func() bool { return r.text(http.MethodGet, "/") == "1" })
}

func TestServersHaveNamesAndCAsOfTheirOwn(t *testing.T) {
	directory := t.TempDir()
	var servers []Server
	for _, name := range []string{"one", "two"} {
		cert, ca := selfSigned(t, name+".example")
		file := filepath.Join(directory, name+".crt")
		if err := os.WriteFile(file, ca, 0o600); err != nil {
			t.Fatal(err)
		}
		server := newServerWith(t, cert, respond(name))
		servers = append(servers, Server{URL: server, TLSServerName: name + ".example", CAFile: file})
	}
	options := fastOptions(servers...)
	options.Clock = fakeclock.New()
	r := newHarness(t, options)
	if got := r.text(http.MethodGet, "/"); got != "one" {
		t.Errorf("got %q", got)
	}
	r.fail(0, errors.New("no"))
	if got := r.text(http.MethodGet, "/"); got != "two" {
		t.Errorf("got %q", got)
	}
	swapped := servers[0]
	swapped.CAFile = servers[1].CAFile
	if err := r.Update(fastOptions(swapped).Settings); err != nil {
		t.Fatal(err)
	}
	if _, err := r.RoundTrip(r.request(http.MethodGet, "/", nil)); !IsLinkError(err) || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("with the CA of the other: %v", err)
	}
	_, ca := selfSigned(t, "another")
	if err := os.WriteFile(servers[1].CAFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.Update(fastOptions(servers[0]).Settings); err != nil {
		t.Fatal(err)
	}
	r.lookAround(t.Context()) // reads the files
	if got := r.text(http.MethodGet, "/"); got != "one" {
		t.Errorf("got %q", got)
	}
}

func TestUpdate(t *testing.T) {
	stays, goes, comes := newServer(t, true, answerName("stays")), newServer(t, true, answerName("goes")), newServer(t, true, answerName("comes"))
	clock := fakeclock.New()
	settings := fastOptions(goes.asServer(), stays.asServer()).Settings
	r := newHarness(t, Options{Settings: settings, Clock: clock})
	moved := r.watch("goes")
	r.address(0).notReady()
	kept := r.watch("stays")
	dials := stays.link.dials()

	settings.Servers = []Server{comes.asServer(), stays.asServer()}
	if err := r.Update(settings); err != nil {
		t.Fatal(err)
	}
	if got := r.text(http.MethodGet, "/"); got != "comes" {
		t.Errorf("a request after the update: %q", got)
	}
	ended := make(chan error, 1)
	go func() { _, err := moved.Read(make([]byte, 1)); ended <- err }()
	clock.Step(drainTimeout - time.Millisecond)
	if len(ended) != 0 {
		t.Error("the watch on the removed address ended before the drain timeout")
	}
	clock.Step(time.Millisecond)
	if err := eventually.Receive(t, "the watch on the removed address to end", ended); !errors.Is(err, errRemoved) || !IsLinkError(err) {
		t.Errorf("it ended with %v", err)
	}
	r.watch("comes")
	eventually.True(t, "no connection to the removed address", func() bool { return goes.link.open() == 0 })

	r.fail(0, errors.New("no"))
	if got := r.text(http.MethodGet, "/"); got != "stays" || stays.link.dials() != dials {
		t.Errorf("the address that stays: %q, over another connection", got)
	}
	ended = make(chan error, 1)
	go func() { _, err := kept.Read(make([]byte, 1)); ended <- err }()
	if err := r.Update(Settings{}); err == nil || len(ended) != 0 {
		t.Errorf("settings without servers: %v", err)
	}
	before := r.plan.Load()
	same := settings
	same.Servers = []Server{comes.asServer(), stays.asServer()}
	if err := r.Update(same); err != nil || r.plan.Load() != before {
		t.Errorf("equal settings make another plan, %v", err)
	}
	r.Upstream.stop()
	if err := eventually.Receive(t, "the watch on the address that stays", ended); !errors.Is(err, errStopped) {
		t.Errorf("it ended with %v", err)
	}
	if err := r.Update(settings); !errors.Is(err, errStopped) {
		t.Errorf("after stop: %v", err)
	}
}

func TestUpdateWhileTheLinkIsDown(t *testing.T) {
	t.Parallel()
	for name, breakLink := range map[string]func(*link){"refused": (*link).refuse, "black hole": (*link).blackhole} {
		t.Run(name, func(t *testing.T) {
			wrong, right := newServer(t, true, respond("wrong")), newServer(t, true, respond("right"))
			breakLink(wrong.link)
			settings := fastOptions(wrong.asServer()).Settings
			settings.RetryInterval = time.Hour
			settings.ConnectTimeout = 200 * time.Millisecond
			r := newHarness(t, Options{Settings: settings}).run()
			r.try("/")
			r.await(Offline)
			settings.Servers, settings.ConnectTimeout = []Server{right.asServer()}, 5*time.Second // long enough for a busy machine
			if err := r.Update(settings); err != nil {
				t.Fatal(err)
			}
			if !r.Online() {
				t.Error("an address that was never tried is not tried")
			}
			if got := r.text(http.MethodGet, "/"); got != "right" {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestAShorterProbeIntervalHoldsAtOnce(t *testing.T) {
	t.Parallel()
	first, second := newServer(t, true, nil), newServer(t, true, nil)
	options := fastOptions(first.asServer(), second.asServer())
	options.ProbeInterval = time.Hour
	r := newHarness(t, options).run()
	r.text(http.MethodGet, "/")
	options.ProbeInterval = 5 * time.Millisecond
	if err := r.Update(options.Settings); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "/readyz to be asked", func() bool {
		r.text(http.MethodGet, "/") // what nobody uses is not asked
		return first.probeCount() > 0
	})
}
