package dispatch

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/util/wait"
	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/relist"
	"rockpool.dev/sidecar/upstream/upstreamtest"
)

const (
	everywhere = "/api/v1/configmaps"
	watchlist  = path + "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
)

// heals runs what lists collections in the background until the test ends.
func (g *harness) heals() {
	g.t.Helper()
	ctx, cancel := context.WithCancel(g.t.Context())
	done := make(chan error, 1)
	refresher := relist.Refresher{Upstream: g.Upstream, Caches: g.Caches, Credentials: g.Credentials, Logger: g.Logger, Clock: g.Clock}
	go func() { done <- refresher.Run(ctx) }()
	g.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			g.t.Error(err)
		}
	})
}

// serves makes upstream answer watches with a stream and lists at a version.
func (g *harness) serves(up stream, rv string) {
	g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
		if r.URL.Query().Has("watch") {
			return response(200, up), nil
		}
		return response(200, io.NopCloser(strings.NewReader(strings.Replace(list, `"resourceVersion":"10"`, `"resourceVersion":"`+rv+`"`, 1)))), nil
	})
}

// lists counts the lists in the background that the server was asked for.
func (g *harness) lists() (n int) {
	for _, r := range g.link.Requests() {
		if r.URL.Query().Get("limit") == "500" {
			n++
		}
	}
	return n
}

// flushed waits until all that was read is recorded.
func (g *harness) flushed() {
	g.t.Helper()
	if err := g.Caches.Disk.Flush(g.t.Context()); err != nil {
		g.t.Fatal(err)
	}
}

// reaches waits until offline the collection is answered at a version.
func (g *harness) reaches(rv string) {
	g.t.Helper()
	err := wait.PollUntilContextTimeout(g.t.Context(), 50*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		g.link.Cut()
		defer g.link.Restore()
		_, body := g.do(g.request("GET", path))
		return strings.Contains(body, `"resourceVersion":"`+rv+`"`), nil
	})
	if err != nil {
		g.t.Fatal(err)
	}
}

func TestAWatchThatBeganOfflineIsListedOnceTheLinkIsBack(t *testing.T) {
	at := func(rv string) string {
		return strings.Replace(list, `"resourceVersion":"10"`, `"resourceVersion":"`+rv+`"`, 1)
	}
	tests := map[string]struct {
		recorded map[string]string // before the link went, by path
		open     string
		state    int // events that it begins with
	}{
		"with a part of a wider list":       {map[string]string{everywhere: at("15")}, watchlist, 2},
		"with a wider list that is newer":   {map[string]string{path: at("10"), everywhere: at("15")}, watchlist, 2},
		"without asking for initial events": {map[string]string{everywhere: at("15")}, path + "?watch=true", 1},
		"behind a list that was not kept":   {nil, path + "?watch=true&resourceVersion=15", 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := newHarness(t)
			for url, body := range tt.recorded {
				g.says(200, body)
				g.do(g.request("GET", url))
			}
			g.flushed()
			o := g.Options // a restart: nobody has shown a token since
			o.Credentials = principal.NewCredentials(func() (string, error) { return g.own, nil }, nil)
			g.restart(o)
			g.link.Cut()
			g.heals()
			c := g.open(g.request("GET", tt.open))
			for range tt.state {
				c.line()
			}
			up := newStream()
			g.serves(up, "20")
			g.link.Restore()
			go up.send(t, event("ADDED", "b", 16)+event("MODIFIED", "b", 17))
			c.want(event("ADDED", "b", 16) + event("MODIFIED", "b", 17))
			g.reaches("20")
			go up.send(t, event("MODIFIED", "b", 21))
			c.want(event("MODIFIED", "b", 21))
			g.reaches("21")
			if n := g.lists(); n != 1 {
				t.Errorf("it was listed %d times", n)
			}
		})
	}
}

// line reads one frame, whatever it says.
func (c *client) line() string {
	c.t.Helper()
	buf := make([]byte, 4096)
	for {
		if line, err := c.buf.ReadString('\n'); err == nil {
			return line
		} else if _, err := c.buf.WriteString(line); err != nil {
			c.t.Fatal(err)
		}
		n, err := c.body.Read(buf)
		c.buf.Write(buf[:n])
		if err != nil {
			c.t.Fatalf("%v behind %q", err, c.buf)
		}
	}
}

func TestWhichWatchesWithoutAListAreListed(t *testing.T) {
	tests := map[string]struct {
		recorded string // the list that there is; empty: none
		url      string
		events   string
		want     int
	}{
		"not one behind a version":                      {"", quiet, event("ADDED", "b", 11), 0},
		"one that begins with the latest state":         {"", path + "?watch=true", event("ADDED", "a", 5), 1},
		"one that begins with any state":                {"", path + "?watch=true&resourceVersion=0", event("ADDED", "a", 5), 1},
		"not when the list has what is read":            {list, path + "?watch=true", event("ADDED", "a", 5) + event("MODIFIED", "c", 10), 0},
		"when the list is older than what is read":      {list, path + "?watch=true", event("ADDED", "a", 5) + event("ADDED", "b", 12) + event("ADDED", "c", 8), 1},
		"when the list is older than the first change":  {list, path + "?watch=true", event("ADDED", "a", 5) + event("DELETED", "c", 11), 1},
		"when the list is older than the first of both": {list, path + "?watch=true", event("MODIFIED", "a", 11), 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := newHarness(t)
			if tt.recorded != "" {
				g.says(200, tt.recorded)
				g.do(g.request("GET", path))
			}
			up := newStream()
			g.serves(up, "20")
			c := g.open(g.request("GET", tt.url))
			go up.send(t, tt.events)
			c.want(tt.events)
			g.flushed()
			if n := len(g.Caches.Disk.Stale()); n != tt.want {
				t.Errorf("%d collections are to be listed, want %d", n, tt.want)
			}
		})
	}
}

func TestAWatchWithoutAVersionIsAnsweredOfflineAndGoesOn(t *testing.T) {
	for _, version := range []string{"", "&resourceVersion=0"} {
		t.Run("version"+version, func(t *testing.T) {
			g := newHarness(t)
			g.heals()
			up := newStream()
			g.serves(up, "20")
			c := g.open(g.request("GET", path+"?watch=true"+version))
			go up.send(t, event("ADDED", "a", 5)+event("MODIFIED", "c", 19))
			c.want(event("ADDED", "a", 5) + event("MODIFIED", "c", 19))
			g.reaches("20")
			go up.send(t, event("DELETED", "a", 21)+event("ADDED", "b", 22))
			c.want(event("DELETED", "a", 21) + event("ADDED", "b", 22))
			g.reaches("22")
			g.link.Cut()
			again := g.open(g.request("GET", path+"?watch=true"+version))
			again.want(event("ADDED", "b", 22))
			if n := g.lists(); n != 1 {
				t.Errorf("it was listed %d times", n)
			}
		})
	}
}

// Without sendInitialEvents nothing marks the end of the state that a watch begins
// with, and going on with half of it would hide the rest for good.
func TestAWatchWithoutAVersionGoesOnOnlyOnceItsStateIsThere(t *testing.T) {
	const bookmark = `{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"12"}}}` + "\n"
	tests := map[string]struct {
		before, last string
		goesOn       bool
	}{
		"not when nothing has come":  {"", "", false},
		"not behind added objects":   {event("ADDED", "b", 9), event("ADDED", "a", 5), false},
		"behind a bookmark":          {event("ADDED", "a", 5), bookmark, true},
		"behind a modification":      {event("ADDED", "a", 5), event("MODIFIED", "a", 12), true},
		"behind a deletion":          {event("ADDED", "a", 5), event("DELETED", "a", 12), true},
		"behind what is added later": {event("DELETED", "a", 11), event("ADDED", "a", 12), true},
	}
	for name, tt := range tests {
		for _, version := range []string{"", "&resourceVersion=0"} {
			t.Run(name+version, func(t *testing.T) {
				g := newHarness(t)
				first, second := newStream(), newStream()
				g.streams(first, second)
				c := g.open(g.request("GET", path+"?watch=true"+version))
				if text := tt.before + tt.last; text != "" {
					go first.send(t, text)
					c.want(text)
				}
				go first.w.CloseWithError(upstreamtest.ErrDown)
				if !tt.goesOn {
					_ = second.w.Close() // ends it if it goes on all the same
					c.ends(upstreamtest.ErrDown)
					return
				}
				go second.send(t, event("ADDED", "c", 13))
				c.want(event("ADDED", "c", 13))
				if q := g.link.Requests()[1].URL.Query(); q.Get("resourceVersion") != "12" {
					t.Errorf("it went on with %v", q)
				}
			})
		}
	}
}

// events gives the counter of recorded events by result.
func events(t *testing.T) map[string]float64 {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "rockpool_record_events_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			counts[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
		}
	}
	return counts
}

func TestTwoIdenticalInformersAreRecordedOnce(t *testing.T) {
	g := newHarness(t)
	size := func() int64 {
		g.flushed()
		info, err := os.Stat(g.db.Path() + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	one, two := newStream(), newStream()
	g.streams(one, two)
	read := func(c *client, up stream, text string) {
		t.Helper()
		go up.send(t, text)
		c.want(text)
	}
	state := event("ADDED", "a", 5) + end
	changes := event("ADDED", "b", 11) + event("ADDED", "c", 12) + event("DELETED", "a", 13)
	c1, c2 := g.open(g.request("GET", watchlist)), g.open(g.request("GET", watchlist))
	read(c1, one, state)
	g.flushed()
	read(c2, two, state)
	g.flushed()

	before := events(t)
	read(c1, one, changes)
	once, counts := size(), events(t)
	if n := counts["applied"] - before["applied"]; n != 3 {
		t.Errorf("%v events of the first were applied, want 3", n)
	}
	read(c2, two, changes)
	if twice := size(); twice != once {
		t.Errorf("the second informer made the write-ahead log grow from %d to %d bytes", once, twice)
	}
	after := events(t)
	if applied, known := after["applied"]-counts["applied"], after["known"]-counts["known"]; applied != 0 || known != 3 {
		t.Errorf("%v events of the second were applied and %v known, want none and 3", applied, known)
	}
	all, err := g.db.Collections(t.Context(), "web", "", "v1", "configmaps")
	if err != nil || len(all) != 1 || all[0].ResourceVersion != "13" {
		t.Errorf("%v, want one collection at 13: %v", all, err)
	}
	if err := errors.Join(one.w.Close(), two.w.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestACollectionThatCannotBeListedIsTriedAgainLater(t *testing.T) {
	g := newHarness(t)
	now := clocktesting.NewFakeClock(time.Now())
	g.at(now)
	up := newStream()
	g.serves(up, "10")
	g.do(g.request("GET", path))
	g.flushed()
	answer := g.link.Answer()
	g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
		if r.URL.Query().Get("limit") == "500" { // it may watch, and it may not list
			return response(403, io.NopCloser(strings.NewReader(`{"kind":"Status","apiVersion":"v1","code":403,"reason":"Forbidden"}`))), nil
		}
		return answer(r)
	})
	g.heals()
	c := g.open(g.request("GET", path+"?watch=true&resourceVersion=15")) // and what was between 10 and 15?
	go up.send(t, event("ADDED", "z", 16))
	c.want(event("ADDED", "z", 16))
	listed := func(n int) {
		t.Helper()
		err := wait.PollUntilContextTimeout(t.Context(), 5*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
			now.Step(time.Second)
			return g.lists() == n, nil
		})
		if err != nil {
			t.Fatalf("listed %d times: %v", g.lists(), err)
		}
	}
	listed(1)
	g.reaches("10") // what was recorded is still there
	refused := now.Now()
	g.serves(up, "20")
	listed(2)
	if after := now.Since(refused); after < 28*time.Second {
		t.Errorf("it was listed again after %s", after)
	}
	g.reaches("20")
}
