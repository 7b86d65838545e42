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
	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/tests/eventually"
)

func TestOrder(t *testing.T) {
	var servers []Server
	for _, name := range []string{"a", "b", "c", "z"} {
		servers = append(servers, Server{URL: &url.URL{Scheme: "https", Host: name}, LastResort: name == "z"})
	}
	steps := []struct {
		name                 string
		do                   func(a, b, c, z *candidate)
		priority, roundRobin string // of three requests
	}{
		{"all are well", func(_, _, _, _ *candidate) {}, "abcz abcz abcz", "abcz bcaz cabz"},
		{"one whose request failed comes last", func(_, b, _, _ *candidate) { b.requestFailed(errors.New("no")) }, "aczb aczb aczb", "aczb cazb aczb"},
		{"one that is down is not tried", func(a, _, _, _ *candidate) { a.probed(errors.New("no")); a.probed(errors.New("no")) }, "czb czb czb", "czb czb czb"},
		{"the last resort is not in turn", func(_, _, c, _ *candidate) { c.requestFailed(errors.New("no")) }, "zbc zbc zbc", "zbc zcb zbc"},
		{"nor when it is in trouble, too", func(_, _, _, z *candidate) { z.requestFailed(errors.New("no")) }, "bcz bcz bcz", "bcz cbz bcz"},
		{"one that answers is back in its place", func(a, b, c, z *candidate) {
			for _, each := range []*candidate{a, b, c, z} {
				each.probed(nil)
			}
		}, "abcz abcz abcz", "abcz bcaz cabz"},
	}
	for mode, want := range map[Mode]func(i int) string{
		Priority:   func(i int) string { return steps[i].priority },
		RoundRobin: func(i int) string { return steps[i].roundRobin },
	} {
		options := fast(servers...)
		options.Mode = mode
		r := build(t, options)
		for i, s := range steps {
			s.do(r.candidate(0), r.candidate(1), r.candidate(2), r.candidate(3))
			var got []string
			for turn := range uint64(3) {
				order := ""
				for _, c := range r.plan.Load().order(turn) {
					order += c.server.URL.Host
				}
				got = append(got, order)
			}
			if strings.Join(got, " ") != want(i) {
				t.Errorf("mode %d, %s: %v, want %s", mode, s.name, got, want(i))
			}
		}
	}
}

func TestServersShareRequests(t *testing.T) {
	first, second, last := newServer(t, true, onePlace("1")), newServer(t, true, onePlace("2")), newServer(t, true, onePlace("3"))
	at := last.at()
	at.LastResort = true
	options := fast(first.at(), second.at(), at)
	options.Mode = RoundRobin
	r := build(t, options).run()
	r.await(Online)
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
		server := newServerWith(t, cert, say(name))
		servers = append(servers, Server{URL: server, TLSServerName: name + ".example", CAFile: file})
	}
	r := build(t, fast(servers...))
	if got := r.text(http.MethodGet, "/"); got != "one" {
		t.Errorf("got %q", got)
	}
	r.fails(0, 2)
	if got := r.text(http.MethodGet, "/"); got != "two" {
		t.Errorf("got %q", got)
	}
	swapped := servers[0]
	swapped.CAFile = servers[1].CAFile
	if err := r.Update(fast(swapped).Settings); err != nil {
		t.Fatal(err)
	}
	if _, err := r.RoundTrip(r.request(http.MethodGet, "/", nil)); !IsLinkError(err) || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("with the CA of the other: %v", err)
	}
	_, ca := selfSigned(t, "another")
	if err := os.WriteFile(servers[1].CAFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.Update(fast(servers[0]).Settings); err != nil {
		t.Fatal(err)
	}
	r.round(t.Context()) // reads the files
	if got := r.text(http.MethodGet, "/"); got != "one" {
		t.Errorf("got %q", got)
	}
}

func TestUpdate(t *testing.T) {
	stays, goes, comes := newServer(t, true, onePlace("stays")), newServer(t, true, onePlace("goes")), newServer(t, true, onePlace("comes"))
	clock := clocktesting.NewFakeClock(time.Now())
	settings := fast(goes.at(), stays.at()).Settings
	r := build(t, Options{Settings: settings, Clock: clock})
	r.round(t.Context())
	moved := r.watch("goes")
	r.fails(0, 2)
	kept := r.watch("stays")
	r.round(t.Context())
	dials := stays.link.dials()

	settings.Servers = []Server{comes.at(), stays.at()}
	if err := r.Update(settings); err != nil {
		t.Fatal(err)
	}
	if len(r.kicked) != 1 {
		t.Error("no probe is asked for")
	}
	if got := r.text(http.MethodGet, "/"); got != "comes" {
		t.Errorf("a request after it: %q", got)
	}
	ended := make(chan error, 1)
	go func() { _, err := moved.Read(make([]byte, 1)); ended <- err }()
	clock.Step(retireAfter - time.Millisecond)
	if len(ended) != 0 {
		t.Error("the watch on the removed address was not given its time")
	}
	clock.Step(time.Millisecond)
	if err := eventually.Receive(t, "the watch on the removed address to end", ended); !errors.Is(err, errRemoved) || !IsLinkError(err) {
		t.Errorf("it ended with %v", err)
	}
	r.watch("comes")
	eventually.True(t, "no connection to the removed address", func() bool { return goes.link.open() == 0 })

	r.fails(0, 2)
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
	same.Servers = []Server{comes.at(), stays.at()}
	if err := r.Update(same); err != nil || r.plan.Load() != before {
		t.Errorf("the same settings make another plan, %v", err)
	}
	r.Upstream.stop()
	if err := eventually.Receive(t, "the watch on the address that stays", ended); !errors.Is(err, errStopped) {
		t.Errorf("it ended with %v", err)
	}
	if err := r.Update(settings); !errors.Is(err, errStopped) {
		t.Errorf("after the end: %v", err)
	}
}

func TestUpdateWhileALinkIsDown(t *testing.T) {
	for name, break1 := range map[string]func(*link){"refused": (*link).refuse, "black hole": (*link).swallow} {
		t.Run(name, func(t *testing.T) {
			wrong, right := newServer(t, true, say("wrong")), newServer(t, true, say("right"))
			break1(wrong.link)
			settings := fast(wrong.at()).Settings
			settings.ProbeInterval = time.Hour // nothing but the update itself asks for a probe
			settings.FailureThreshold = 1
			r := build(t, Options{Settings: settings}).run()
			r.await(Offline)
			settings.Servers = []Server{right.at()}
			if err := r.Update(settings); err != nil {
				t.Fatal(err)
			}
			r.await(Online)
			if got := r.text(http.MethodGet, "/"); got != "right" {
				t.Errorf("got %q", got)
			}
		})
	}
}
