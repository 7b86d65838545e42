package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/sidecar/api/agent"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/relist"
	"rockpool.dev/sidecar/replay"
	"rockpool.dev/tests/eventually"
)

const (
	allNamespaces = "/api/v1/configmaps"
	watchList     = path + "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
)

// runRefresher runs the Refresher until the test ends.
func (g *harness) runRefresher() {
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

// serveCollection makes the API server answer watches with a stream and lists at a resourceVersion.
func (g *harness) serveCollection(up stream, rv string, more ...string) {
	body := strings.Replace(list, `"resourceVersion":"10"`, `"resourceVersion":"`+rv+`"`, 1)
	for _, o := range more {
		body = strings.TrimSuffix(body, "]}") + "," + o + "]}"
	}
	g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
		if r.URL.Query().Has("watch") {
			return response(200, up), nil
		}
		return textResponse(200, body), nil
	})
}

// backgroundLists counts the requests of the Refresher for the collection.
func (g *harness) backgroundLists() (n int) {
	for _, r := range g.link.Requests() {
		if r.URL.Query().Get("limit") == "500" && r.URL.Path == path {
			n++
		}
	}
	return n
}

// waitForVersion waits until the collection is answered offline at a resourceVersion. It asks the
// cache itself: a link that it cut would lose the lists that are to come over it.
func (g *harness) waitForVersion(rv string) {
	g.t.Helper()
	r := g.request("GET", path)
	eventually.True(g.t, "the collection is recorded at "+rv, func() bool {
		g.flush()
		resp, err := g.Caches.Disk.Answer(g.t.Context(), replay.Request{Principal: "web", Info: request.Parse(r), Path: path})
		if err != nil {
			return false
		}
		body, err := io.ReadAll(resp.Body)
		return errors.Join(err, resp.Body.Close()) == nil && strings.Contains(string(body), `"resourceVersion":"`+rv+`"`)
	})
}

func TestAWatchThatOpenedOfflineIsListedOnceTheLinkReturns(t *testing.T) {
	at := func(rv string) string {
		return strings.Replace(list, `"resourceVersion":"10"`, `"resourceVersion":"`+rv+`"`, 1)
	}
	tests := map[string]struct {
		recorded map[string]string // before the link breaks, by path
		open     string
		state    int // the number of its initial events
	}{
		"with a part of a wider list":       {map[string]string{allNamespaces: at("15")}, watchList, 2},
		"with a wider list that is newer":   {map[string]string{path: at("10"), allNamespaces: at("15")}, watchList, 2},
		"without asking for initial events": {map[string]string{allNamespaces: at("15")}, path + "?watch=true", 1},
		"from an unrecorded list":           {nil, path + "?watch=true&resourceVersion=15", 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := newHarness(t)
			for _, url := range []string{path, allNamespaces} {
				if body, ok := tt.recorded[url]; ok {
					g.answerAll(200, body)
					g.do(g.request("GET", url))
				}
			}
			g.flush()
			o := g.Options // as after a restart, before any token was used
			o.Credentials = principal.NewCredentials(func() (string, error) { return g.podToken, nil }, nil)
			g.restart(o)
			g.link.Cut()
			g.runRefresher()
			c := g.open(g.request("GET", tt.open))
			for range tt.state {
				c.readFrame()
			}
			up := newStream()
			g.serveCollection(up, "20", `{"metadata":{"name":"b","namespace":"shop","uid":"u","resourceVersion":"17"}}`)
			g.link.Restore()
			go up.send(t, event("ADDED", "b", 16)+event("MODIFIED", "b", 17))
			c.want(event("ADDED", "b", 16) + event("MODIFIED", "b", 17))
			g.waitForVersion("20")
			// A list of all namespaces may be the first. The API server does not answer at 20 after 21.
			eventually.True(t, "the collection itself is listed", func() bool { return g.backgroundLists() > 0 })
			go up.send(t, event("MODIFIED", "b", 21))
			c.want(event("MODIFIED", "b", 21))
			g.waitForVersion("21")
			if n := g.backgroundLists(); n != 1 {
				t.Errorf("%d background lists, want 1", n)
			}
		})
	}
}

func TestAWatchIsRecordedOnceItsClientIsSelected(t *testing.T) {
	choose := func(g *harness, list string) {
		g.t.Helper()
		s, err := agent.Parse(list)
		if err != nil {
			g.t.Fatal(err)
		}
		g.SetAgents(s)
	}
	for name, tt := range map[string]struct {
		url     string
		initial string // events
		lists   int    // in the background
	}{
		"from a resourceVersion": {watchFrom10, event("MODIFIED", "b", 17), 1},
		"without events":         {watchFrom10, "", 1},
		"from the latest state":  {path + "?watch=true", event("ADDED", "a", 5), 1},
		"of one object":          {path + "?watch=true&resourceVersion=10&fieldSelector=metadata.name%3Db", event("MODIFIED", "b", 17), 0},
	} {
		t.Run(name, func(t *testing.T) {
			g := newHarness(t)
			choose(g, "other")
			g.runRefresher()
			up := newStream()
			g.serveCollection(up, "20")
			c := g.open(g.request("GET", tt.url))
			if tt.initial != "" {
				go up.send(t, tt.initial)
				c.want(tt.initial)
			}
			g.flush()
			if all, err := g.db.Collections(t.Context(), "web", "", "v1", "configmaps"); err != nil || len(all) > 0 {
				t.Fatalf("a client that is not selected was recorded: %v %v", all, err)
			}
			choose(g, "*")
			choose(g, "*") // nothing is recorded twice
			if tt.lists > 0 {
				g.waitForVersion("20")
			}
			go up.send(t, event("MODIFIED", "b", 21))
			c.want(event("MODIFIED", "b", 21))
			eventually.True(t, "the event is recorded", func() bool {
				g.link.Cut()
				defer g.link.Restore()
				_, body := g.do(g.request("GET", path+"/b"))
				return strings.Contains(body, `"resourceVersion":"21"`)
			})
			if n := g.backgroundLists(); n != tt.lists {
				t.Errorf("%d background lists, want %d", n, tt.lists)
			}
		})
	}
}

func TestWatchesWhoseCollectionMustBeListed(t *testing.T) {
	tests := map[string]struct {
		recorded string // the list; empty: none
		url      string
		events   string
		want     int
	}{
		"one from a resourceVersion":                   {"", watchFrom10, event("ADDED", "b", 11), 1},
		"not one of a single object":                   {"", path + "?watch=true&fieldSelector=metadata.name%3Db", event("ADDED", "b", 11), 0},
		"one from the latest state":                    {"", path + "?watch=true", event("ADDED", "a", 5), 1},
		"one from any state":                           {"", path + "?watch=true&resourceVersion=0", event("ADDED", "a", 5), 1},
		"not when the list has all events":             {list, path + "?watch=true", event("ADDED", "a", 5) + event("DELETED", "c", 10), 0},
		"when the list is older than an added object":  {list, path + "?watch=true", event("ADDED", "a", 5) + event("ADDED", "b", 12) + event("ADDED", "c", 8), 1},
		"when the list is older than the first change": {list, path + "?watch=true", event("ADDED", "a", 5) + event("DELETED", "c", 11), 1},
		"when the list is older than the only event":   {list, path + "?watch=true", event("MODIFIED", "a", 11), 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := newHarness(t)
			if tt.recorded != "" {
				g.answerAll(200, tt.recorded)
				g.do(g.request("GET", path))
			}
			up := newStream()
			g.serveCollection(up, "20")
			c := g.open(g.request("GET", tt.url))
			go up.send(t, tt.events)
			c.want(tt.events)
			g.flush()
			if n := g.mustBeListed(); n != tt.want {
				t.Errorf("%d collections are to be listed, want %d", n, tt.want)
			}
		})
	}
}

// mustBeListed counts the collections that are reported as stale, whatever comes meanwhile.
func (g *harness) mustBeListed() int {
	paths := map[string]bool{}
	for len(g.Caches.Disk.Stale()) > 0 {
		if s := <-g.Caches.Disk.Stale(); !s.IfOvertaken {
			paths[s.Source.Info.Path] = true
		}
	}
	return len(paths)
}

func TestAWatchWithoutAVersionIsListedAndAnsweredOffline(t *testing.T) {
	for _, version := range []string{"", "&resourceVersion=0"} {
		t.Run("version"+version, func(t *testing.T) {
			g := newHarness(t)
			g.runRefresher()
			up := newStream()
			g.serveCollection(up, "20")
			c := g.open(g.request("GET", path+"?watch=true"+version))
			go up.send(t, event("ADDED", "a", 5)+event("MODIFIED", "c", 19))
			c.want(event("ADDED", "a", 5) + event("MODIFIED", "c", 19))
			g.waitForVersion("20")
			go up.send(t, event("DELETED", "a", 21)+event("ADDED", "b", 22))
			c.want(event("DELETED", "a", 21) + event("ADDED", "b", 22))
			g.waitForVersion("22")
			g.link.Cut()
			again := g.open(g.request("GET", path+"?watch=true"+version))
			again.want(event("ADDED", "b", 22))
			if n := g.backgroundLists(); n != 1 {
				t.Errorf("%d background lists, want 1", n)
			}
		})
	}
}

func TestARefusedBackgroundListIsRetriedLater(t *testing.T) {
	g := newHarness(t)
	now := clocktesting.NewFakeClock(time.Now())
	g.setClock(now)
	up := newStream()
	g.serveCollection(up, "10")
	g.do(g.request("GET", path))
	g.flush()
	answer := g.link.Answer()
	g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
		if r.URL.Query().Get("limit") == "500" { // allowed to watch, not to list
			return textResponse(403, `{"kind":"Status","apiVersion":"v1","code":403,"reason":"Forbidden"}`), nil
		}
		return answer(r)
	})
	g.runRefresher()
	c := g.open(g.request("GET", path+"?watch=true&resourceVersion=15")) // the events from 10 to 15 are missing
	go up.send(t, event("ADDED", "z", 16))
	c.want(event("ADDED", "z", 16))
	waitForLists := func(n int) {
		t.Helper()
		eventually.True(t, fmt.Sprintf("list %d", n), func() bool {
			now.Step(time.Second)
			return g.backgroundLists() == n
		})
	}
	waitForLists(1)
	refused := now.Now()
	g.serveCollection(up, "20")
	waitForLists(2)
	if after := now.Since(refused); after < 28*time.Second {
		t.Errorf("the second list came after %s", after)
	}
	g.waitForVersion("20")
}

func TestACollectionThatIsNotServedAnyMoreIsNotListedAgainAndAgain(t *testing.T) {
	g := newHarness(t)
	now := clocktesting.NewFakeClock(time.Now())
	g.setClock(now)
	const services = "/api/v1/namespaces/shop/services"
	up := newStream()
	g.serveCollection(up, "10")
	g.do(g.request("GET", path))
	g.flush()
	answer, other := g.link.Answer(), newStream()
	g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
		switch q := r.URL.Query(); {
		case q.Get("limit") == "500" && r.URL.Path == path: // its definition is deleted
			return textResponse(404, `{"kind":"Status","apiVersion":"v1","code":404,"reason":"NotFound"}`), nil
		case q.Has("watch") && r.URL.Path == services:
			return response(200, other), nil
		}
		return answer(r)
	})
	gap := "?watch=true&resourceVersion=15" // the events from 10 to 15 are missing
	c := g.open(g.request("GET", path+gap))
	go up.send(t, event("ADDED", "z", 16))
	c.want(event("ADDED", "z", 16))
	g.flush()
	g.runRefresher() // now, so that one list is for the opening of the watch and for its event
	eventually.True(t, "the list is asked for", func() bool {
		now.Step(time.Second)
		return g.backgroundLists() == 1
	})
	g.flush()
	if err := c.body.Close(); err != nil { // or the watch would ask for a list whenever it is resumed
		t.Fatal(err)
	}
	now.Step(2 * time.Hour)                    // the longest interval between two lists is one hour
	c = g.open(g.request("GET", services+gap)) // what must be listed next
	go other.send(t, event("ADDED", "y", 17))
	c.want(event("ADDED", "y", 17))
	eventually.True(t, "the other list is asked for", func() bool {
		now.Step(time.Second)
		for _, r := range g.link.Requests() {
			if r.URL.Query().Get("limit") == "500" && r.URL.Path == services {
				return true
			}
		}
		return false
	})
	if n := g.backgroundLists(); n != 1 {
		t.Errorf("the collection that is not served was listed %d times, want 1", n)
	}
	g.flush()
	g.link.Cut()
	if code, body := g.do(g.request("GET", path)); code == 200 {
		t.Errorf("offline, the list of a resource that is not served: %d %s", code, body)
	}
}

func TestA404OfOneVersionOfAnAPIHasTheOtherVersionsListedAgain(t *testing.T) {
	g := newHarness(t)
	const served, removed = "/apis/example.com/v1/namespaces/shop/things", "/apis/example.com/v1beta1/namespaces/shop/things"
	for _, url := range []string{served, removed} {
		g.answerAll(200, strings.NewReplacer("ConfigMapList", "ThingList", `"apiVersion":"v1"`, `"apiVersion":"example.com/v1"`).Replace(list))
		g.do(g.request("GET", url))
	}
	g.flush()
	for len(g.Caches.Disk.Stale()) > 0 {
		<-g.Caches.Disk.Stale()
	}
	g.answerAll(404, `{"kind":"Status","apiVersion":"v1","code":404,"reason":"NotFound"}`)
	g.do(g.request("GET", removed))
	g.flush()
	paths := map[string]bool{}
	for len(g.Caches.Disk.Stale()) > 0 {
		paths[(<-g.Caches.Disk.Stale()).Source.Info.Path] = true
	}
	if !maps.Equal(paths, map[string]bool{served: true}) {
		t.Errorf("to be listed: %v, want only %s", paths, served)
	}
}

func TestACollectionThatMissedAnEventIsListedAgain(t *testing.T) {
	g := newHarness(t)
	page := func(token, name string) string {
		return strings.NewReplacer(`"resourceVersion":"10"`, `"resourceVersion":"20","continue":"`+token+`"`, `"a"`, `"`+name+`"`).Replace(list)
	}
	up := newStream()
	g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
		body := list
		switch q := r.URL.Query(); {
		case q.Has("watch"):
			return response(200, up), nil
		case q.Get("limit") == "500" && q.Get("continue") == "":
			body = page("more", "b")
		case q.Get("limit") == "500":
			body = page("", "c")
		}
		return textResponse(200, body), nil
	})
	g.runRefresher()
	g.do(g.request("GET", path))
	c := g.open(g.request("GET", path+"?watch=true&resourceVersion=15")) // the events from 10 to 15 are missing
	go up.send(t, event("ADDED", "z", 16))
	c.want(event("ADDED", "z", 16))

	relisted := func() bool {
		g.link.Cut()
		defer g.link.Restore()
		_, body := g.do(g.request("GET", path))
		return strings.Contains(body, `"resourceVersion":"20"`) && strings.Contains(body, `"b"`) && strings.Contains(body, `"c"`) && !strings.Contains(body, `"z"`)
	}
	eventually.True(t, "the collection is listed again", relisted)
	for _, r := range g.link.Requests() {
		if r.Header.Get("Authorization") != "Bearer "+g.podToken {
			t.Errorf("%s was sent with another token", r.URL)
		}
	}
}

func TestAWatchedCollectionIsListedAgainWhenTheCacheFileIsLost(t *testing.T) {
	g := newHarness(t)
	up := newStream()
	g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
		if r.URL.Query().Has("watch") {
			return response(200, up), nil
		}
		return textResponse(200, list), nil
	})
	g.runRefresher()
	g.do(g.request("GET", path))
	c := g.open(g.request("GET", path+"?watch=true&resourceVersion=10"))
	g.flush()
	if err := os.Remove(g.db.Path()); err != nil {
		t.Fatal(err)
	}
	go up.send(t, event("ADDED", "z", 16)) // goes to the client and to the lost file
	c.want(event("ADDED", "z", 16))
	again := func() bool {
		g.link.Cut()
		defer g.link.Restore()
		code, body := g.do(g.request("GET", path))
		return code == 200 && strings.Contains(body, `"resourceVersion":"10"`)
	}
	eventually.True(t, "the collection is listed again", again)
}

// An event that nobody here can read may be the change that the recorded list lacks.
func TestAnUnreadableEventBeforeItsClientIsSelectedIsNotSkipped(t *testing.T) {
	for name, tt := range map[string]struct {
		before string // the client is selected
		want   int
	}{
		"nothing came before":        {"", 200},
		"it was an unreadable event": {`{"type":"MODIFIED","object":null}` + "\n", 503},
	} {
		t.Run(name, func(t *testing.T) {
			g := newHarness(t)
			g.answerAll(200, list)
			g.do(g.request("GET", path))
			choose := func(list string) {
				s, err := agent.Parse(list)
				if err != nil {
					t.Fatal(err)
				}
				g.SetAgents(s)
			}
			choose("other")
			up := newStream()
			g.serveCollection(up, "20")
			c := g.open(g.request("GET", watchFrom10))
			send := func(frames string) {
				go up.send(t, frames)
				c.want(frames)
			}
			if tt.before != "" {
				send(tt.before)
			}
			choose("*")
			send(event("MODIFIED", "b", 17))
			g.flush()
			g.link.Cut()
			if code, body := g.do(g.request("GET", path)); code != tt.want {
				t.Errorf("%d %s, want %d", code, body, tt.want)
			}
		})
	}
}

// A stream that nobody here can read counts from the time on when its client is selected.
func TestAnUnreadableStreamCountsOnceItsClientIsSelected(t *testing.T) {
	for agents, want := range map[string]int{"other": 200, "*": 503} {
		t.Run(agents, func(t *testing.T) {
			g := newHarness(t)
			g.answerAll(200, list)
			g.do(g.request("GET", path))
			choose := func(list string) {
				s, err := agent.Parse(list)
				if err != nil {
					t.Fatal(err)
				}
				g.SetAgents(s)
			}
			choose("other")
			up := newStream()
			g.link.SetAnswer(func(*http.Request) (*http.Response, error) {
				resp := response(200, up)
				resp.Header.Set("Content-Type", "text/plain")
				return resp, nil
			})
			c := g.open(g.request("GET", watchFrom10))
			choose(agents)
			frame := event("MODIFIED", "b", 17)
			go up.send(t, frame)
			c.want(frame)
			choose("*")
			g.flush()
			g.link.Cut()
			if code, body := g.do(g.request("GET", path)); code != want {
				t.Errorf("%d %s, want %d", code, body, want)
			}
		})
	}
}
