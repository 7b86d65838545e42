package dispatch

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"rockpool.dev/sidecar/api/agent"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/sidecar/upstream/upstreamtest"
	"rockpool.dev/tests/eventually"
)

const (
	expiredStatus = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old","reason":"Expired","code":410}`
	expiredEvent  = `{"type":"ERROR","object":` + expiredStatus + "}\n"
	bookmarks     = "&allowWatchBookmarks=true"
)

// object returns an item of a list.
func object(name, uid string, rv int) string {
	return fmt.Sprintf(`{"metadata":{"name":%q,"namespace":"shop","uid":%q,"resourceVersion":"%d"}}`, name, uid, rv)
}

// listOf returns a list, or a page of one.
func listOf(rv int, next string, items ...string) string {
	return fmt.Sprintf(`{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"%d","continue":%q},"items":[%s]}`, rv, next, strings.Join(items, ","))
}

// eventOf returns an event of such an object.
func eventOf(kind, name, uid string, rv int) string {
	return strings.Replace(event(kind, name, rv), `"uid":"u"`, fmt.Sprintf(`"uid":%q`, uid), 1)
}

func bookmark(rv int) string {
	return fmt.Sprintf(`{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"%d","creationTimestamp":null}}}`, rv) + "\n"
}

// server is the API server after an outage. It has one list, and watches from one resourceVersion.
type server struct {
	mu         sync.Mutex
	version    string            // watches from another resourceVersion get 410
	asEvent    bool              // 410 comes as an event of the stream
	after410   string            // comes with that event
	pages      []string          // of the list
	listStatus int               // of the answers to lists; 0: 200
	listErr    error             // interrupts the first list; nil: none
	listHangs  bool              // until the request ends
	lists      []*http.Request   // the requests so far
	streams    map[string]stream // by resourceVersion
}

func (s *server) answer(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := r.URL.Query()
	switch {
	case !q.Has("watch"):
		s.lists = append(s.lists, r)
		if s.listHangs {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}
		if err := s.listErr; err != nil {
			s.listErr = nil
			return response(200, io.NopCloser(io.MultiReader(strings.NewReader(s.pages[0][:len(s.pages[0])/2]), iotest.ErrReader(err)))), nil
		}
		if s.listStatus != 0 {
			return textResponse(s.listStatus, `{"kind":"Status","apiVersion":"v1"}`), nil
		}
		page := 0
		if q.Has("continue") {
			_, _ = fmt.Sscan(q.Get("continue"), &page)
		}
		return textResponse(200, s.pages[page]), nil
	case q.Get("resourceVersion") == s.version:
		if _, ok := s.streams[s.version]; !ok {
			return nil, upstreamtest.ErrDown
		}
		return response(200, s.streams[s.version]), nil
	case s.asEvent:
		return textResponse(200, expiredEvent+s.after410), nil
	}
	return textResponse(410, expiredStatus+"\n"), nil
}

// interruptedWatch records a list of a@5, b@6 and c@7 and opens a watch from it. The watch gets a
// change of b before the link breaks; s answers from then on.
func (g *harness) interruptedWatch(query string, s *server) *client {
	g.t.Helper()
	g.answerAll(200, listOf(10, "", object("a", "ua", 5), object("b", "ub", 6), object("c", "uc", 7)))
	g.do(g.request("GET", path))
	first := newStream()
	g.answerInTurn(first)
	c := g.open(g.request("GET", watchFrom10+query))
	go first.send(g.t, eventOf("MODIFIED", "b", "ub", 11))
	c.want(eventOf("MODIFIED", "b", "ub", 11))
	g.link.SetAnswer(s.answer)
	go first.w.CloseWithError(upstreamtest.ErrDown)
	return c
}

func TestAnExpiredWatchIsSentTheChangesThatItMissed(t *testing.T) {
	same := []string{object("a", "ua", 5), object("b", "ub", 11), object("c", "uc", 7)}
	tests := map[string]struct {
		query string
		pages []string
		want  string
	}{
		"nothing":                {"", []string{listOf(20, "", same...)}, ""},
		"nothing but a bookmark": {bookmarks, []string{listOf(20, "", same...)}, bookmark(20)},
		"an object was deleted": {"", []string{listOf(20, "", same[0], same[1])},
			eventOf("DELETED", "c", "uc", 11)},
		"all objects were deleted": {bookmarks, []string{listOf(20, "")},
			eventOf("DELETED", "a", "ua", 11) + eventOf("DELETED", "b", "ub", 11) + eventOf("DELETED", "c", "uc", 11) + bookmark(20)},
		"an object was changed": {"", []string{listOf(20, "", object("a", "ua", 12), same[1], same[2])},
			eventOf("MODIFIED", "a", "ua", 12)},
		"an object was added": {"", []string{listOf(20, "", append(same, object("d", "ud", 13))...)},
			eventOf("ADDED", "d", "ud", 13)},
		"an object was deleted and created again": {"", []string{listOf(20, "", object("a", "other", 14), same[1], same[2])},
			eventOf("DELETED", "a", "ua", 11) + eventOf("ADDED", "a", "other", 14)},
		"all of that, in pages, by resourceVersion": {bookmarks,
			[]string{listOf(20, "1", object("a", "other", 19)), listOf(20, "2", object("b", "ub", 15)), listOf(20, "", object("d", "ud", 12), object("e", "ue", 17))},
			eventOf("DELETED", "a", "ua", 11) + eventOf("DELETED", "c", "uc", 11) +
				eventOf("ADDED", "d", "ud", 12) + eventOf("MODIFIED", "b", "ub", 15) + eventOf("ADDED", "e", "ue", 17) + eventOf("ADDED", "a", "other", 19) + bookmark(20)},
	}
	for name, tt := range tests {
		for _, asEvent := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, 410 as an event %v", name, asEvent), func(t *testing.T) {
				t.Parallel()
				g := newHarness(t)
				after := newStream()
				s := &server{asEvent: asEvent, version: "20", pages: tt.pages, streams: map[string]stream{"20": after}}
				c := g.interruptedWatch(tt.query+"&labelSelector=", s)
				go after.send(t, event("ADDED", "z", 21))
				c.want(tt.want + event("ADDED", "z", 21))
				for _, r := range s.lists {
					q := r.URL.Query()
					if r.Header.Get("Authorization") != "Bearer "+g.podToken || q.Has("watch") || q.Has("resourceVersion") || q.Has("allowWatchBookmarks") || r.Header.Get("Accept") != "application/json" {
						t.Errorf("listed with %v as %s", r.URL, r.Header.Get("Accept"))
					}
				}
				if len(s.lists) != len(tt.pages) {
					t.Errorf("%d lists", len(s.lists))
				}
				go after.w.Close()
				c.wantEnd(io.EOF)

				g.link.Cut() // the changes were recorded
				code, body := g.do(g.request("GET", path))
				var have []string
				for _, page := range tt.pages {
					for _, item := range strings.SplitAfter(page[strings.Index(page, `"items":[`)+9:], "}}") {
						have = append(have, strings.Trim(item, ",]}"))
					}
				}
				for _, item := range have {
					if code != 200 || !strings.Contains(body, item) || !strings.Contains(body, `"resourceVersion":"21"`) {
						t.Fatalf("offline: %d %s lacks %s", code, body, item)
					}
				}
				if n, want := strings.Count(body, `"uid"`), strings.Count(strings.Join(tt.pages, ""), `"uid"`)+1; n != want {
					t.Errorf("%d objects are recorded, want %d: %s", n, want, body)
				}
			})
		}
	}
}

func TestAnExpiredWatchGets410WhenItsMissedChangesAreUnknown(t *testing.T) {
	valid := func() *server { return &server{version: "20", pages: []string{listOf(20, "", object("b", "ub", 11))}} }
	tests := map[string]struct {
		query  string
		header [2]string
		before func(*harness)          // is called before the watch opens
		change func(*harness, *server) // is called before the link breaks
		lists  int                     // requests for lists
	}{
		"without a cache":            {before: func(g *harness) { g.Caches.Disk = &cache.Cache{} }},
		"when the list is refused":   {change: func(_ *harness, s *server) { s.listStatus = 403 }, lists: 1},
		"when the list is truncated": {change: func(_ *harness, s *server) { s.pages[0] = s.pages[0][:len(s.pages[0])-2] }, lists: 1},
		"when the answer is no list": {change: func(_ *harness, s *server) { s.pages[0] = `{"kind":"ConfigMap","metadata":{}}` }, lists: 1},
		"when its kind does not end in List": {change: func(_ *harness, s *server) {
			s.pages[0] = strings.Replace(listOf(20, "", object("b", "ub", 12)), "ConfigMapList", "Map", 1)
		}, lists: 1},
		"when the list has no kind": {change: func(_ *harness, s *server) { s.pages[0] = strings.Replace(s.pages[0], "ConfigMapList", "", 1) }, lists: 1},
		"when only metadata is listed": {change: func(_ *harness, s *server) {
			s.pages[0] = strings.Replace(s.pages[0], "ConfigMapList", "PartialObjectMetadataList", 1)
		}, lists: 1},
		"when the list is older":           {change: func(_ *harness, s *server) { s.pages[0] = listOf(9, "", object("b", "ub", 6)) }, lists: 1},
		"when the list is older and empty": {change: func(_ *harness, s *server) { s.pages[0] = listOf(9, "") }, lists: 1},
		"when an added object is older than the watch": {change: func(_ *harness, s *server) {
			s.pages[0] = listOf(20, "", object("b", "ub", 11), object("x", "ux", 8))
		}, lists: 1},
		"when the list has an older version of an object": {change: func(_ *harness, s *server) { s.pages[0] = listOf(20, "", object("b", "ub", 6)) }, lists: 1},
		"when versions are no numbers": {change: func(_ *harness, s *server) {
			s.pages[0] = strings.ReplaceAll(listOf(20, "", object("b", "ub", 13)), `"13"`, `"v13"`)
		}, lists: 1},
		"when its pages have two resourceVersions": {change: func(_ *harness, s *server) {
			s.pages = []string{listOf(20, "1", object("a", "ua", 5)), listOf(21, "", object("b", "ub", 11))}
		}, lists: 2},
		"when too many bytes have changed": {change: func(_ *harness, s *server) {
			s.pages[0] = listOf(20, "", object("b", strings.Repeat("u", record.DefaultMaxPending), 12))
		}, lists: 1},
		"when a newer list is recorded": {change: func(g *harness, s *server) {
			s.version = "nothing" // the watch resumes once all of this is set up
			resp, err := s.answer(g.request("GET", path))
			if err != nil {
				g.t.Error(err)
				return
			}
			g.Caches.Disk.Record(&record.Source{Principal: "web", Info: request.Parse(g.request("GET", path)), Path: path, Started: time.Now()}, resp)
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				g.t.Error(err)
			}
		}, lists: 1},
		"when the client prefers Tables": {header: [2]string{"Accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}},
		"with impersonation":             {header: [2]string{"Impersonate-User", "root"}},
		"when its user agent is not recorded": {before: func(g *harness) {
			app, err := agent.Parse("app")
			if err != nil {
				g.t.Fatal(err)
			}
			g.Agents.Set(app)
		}},
		"with a field selector that is not recorded": {query: "&fieldSelector=data.x=y"},
		"when the answer to the list is compressed":  {change: func(_ *harness, s *server) { s.pages[0] = "\x1f\x8b" }, lists: 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := newHarness(t)
			g.answerAll(200, listOf(10, "", object("a", "ua", 5), object("b", "ub", 6)))
			g.do(g.request("GET", path))
			first := newStream()
			g.answerInTurn(first)
			r := g.request("GET", watchFrom10+tt.query)
			if tt.header[0] != "" {
				r.Header.Set(tt.header[0], tt.header[1])
			}
			if tt.before != nil {
				tt.before(g)
			}
			c := g.open(r)
			go first.send(t, eventOf("MODIFIED", "b", "ub", 11))
			c.want(eventOf("MODIFIED", "b", "ub", 11))
			g.flush()
			s := valid()
			if tt.change != nil {
				tt.change(g, s)
			}
			g.link.SetAnswer(s.answer)
			go first.w.CloseWithError(upstreamtest.ErrDown)
			c.want(expiredEvent)
			c.wantEnd(io.EOF)
			if len(s.lists) != tt.lists {
				t.Errorf("%d lists, want %d", len(s.lists), tt.lists)
			}
		})
	}
}

func TestAnInterruptedListIsRequestedAgain(t *testing.T) {
	g := newHarness(t)
	after := newStream()
	s := &server{version: "20", pages: []string{listOf(20, "", object("b", "ub", 12))}, listErr: upstreamtest.ErrDown, streams: map[string]stream{"20": after}}
	c := g.interruptedWatch("", s)
	c.want(eventOf("DELETED", "a", "ua", 11) + eventOf("DELETED", "c", "uc", 11) + eventOf("MODIFIED", "b", "ub", 12))
	if len(s.lists) != 2 {
		t.Errorf("%d lists", len(s.lists))
	}
}

func TestA410EventAfterOtherEventsIsPassedOn(t *testing.T) {
	g := newHarness(t)
	after := newStream()
	s := &server{version: "11", streams: map[string]stream{"11": after}}
	c := g.interruptedWatch("", s)
	go func() {
		after.send(t, event("ADDED", "z", 12)+expiredEvent)
		_ = after.w.Close()
	}()
	c.want(event("ADDED", "z", 12) + expiredEvent)
	c.wantEnd(io.EOF)
}

func TestEventsThatComeWithA410EventAreTakenFromTheList(t *testing.T) {
	g := newHarness(t)
	after := newStream()
	s := &server{
		version: "20", asEvent: true, after410: bookmark(19), pages: []string{listOf(20, "", object("b", "ub", 12))},
		streams: map[string]stream{"20": after},
	}
	c := g.interruptedWatch("", s)
	go after.send(t, event("ADDED", "z", 21))
	c.want(eventOf("DELETED", "a", "ua", 11) + eventOf("DELETED", "c", "uc", 11) + eventOf("MODIFIED", "b", "ub", 12) + event("ADDED", "z", 21))
}

func TestAnErrorEventWithAnotherCodeIsPassedOn(t *testing.T) {
	for _, code := range []string{"500", "504"} {
		g := newHarness(t)
		after := newStream()
		s := &server{version: "11", streams: map[string]stream{"11": after}}
		c := g.interruptedWatch("", s)
		go func() {
			after.send(t, strings.Replace(expiredEvent, "410", code, 1))
			_ = after.w.Close()
		}()
		c.want(strings.Replace(expiredEvent, "410", code, 1))
		c.wantEnd(io.EOF)
	}
}

func TestAWatchThatOpensAtAnExpiredVersionGets410(t *testing.T) {
	g := newHarness(t)
	g.answerAll(200, list)
	g.do(g.request("GET", path))
	g.link.SetAnswer((&server{version: "20", pages: []string{listOf(20, "")}}).answer)
	if code, body := g.do(g.request("GET", watchFrom10)); code != 410 || body != expiredStatus+"\n" {
		t.Errorf("%d %s", code, body)
	}
	g.link.SetAnswer((&server{version: "20", asEvent: true, pages: []string{listOf(20, "")}}).answer)
	c := g.open(g.request("GET", watchFrom10))
	c.want(expiredEvent)
	c.wantEnd(io.EOF)
}

func TestAWatchThatOpenedOfflineIsSentTheChangesThatItMissed(t *testing.T) {
	for name, url := range map[string]string{
		"from a list that the cache answered": watchFrom10,
		"with the state of a wider list":      watchList,
	} {
		t.Run(name, func(t *testing.T) {
			g := newHarness(t)
			read := path
			if url == watchList {
				read = allNamespaces
			}
			g.answerAll(200, list)
			g.do(g.request("GET", read))
			g.link.Cut()
			c := g.open(g.request("GET", url))
			if url == watchList {
				c.readFrame()
				c.readFrame()
			}
			s := &server{version: "20", pages: []string{listOf(20, "", object("b", "ub", 12))}}
			g.link.SetAnswer(s.answer)
			g.link.Restore()
			c.want(eventOf("DELETED", "a", "u", 10) + eventOf("ADDED", "b", "ub", 12))
		})
	}
}

// Two informers of one program are at one position, and one list is enough for both. A watch with
// impersonation must not share it.
func TestWatchesAtOnePositionShareOneList(t *testing.T) {
	g := newHarness(t)
	g.answerAll(200, listOf(10, "", object("a", "ua", 5)))
	g.do(g.request("GET", path))
	g.flush()
	streams := []stream{newStream(), newStream(), newStream()}
	g.answerInTurn(streams[0], streams[1], streams[2])
	difference := eventOf("DELETED", "a", "ua", 10) + eventOf("ADDED", "b", "ub", 12)
	got := make([]chan string, len(streams))
	for i := range streams {
		r, want := g.request("GET", watchFrom10), difference
		if i == 0 {
			r.Header.Set("Impersonate-User", "root")
			want = expiredEvent
		}
		c := g.open(r)
		got[i] = make(chan string)
		go func() {
			buf := make([]byte, len(want))
			n, _ := io.ReadFull(c.body, buf) // the comparison below fails after an error
			got[i] <- string(buf[:n])
		}()
	}
	g.link.Cut()
	s := &server{version: "20", asEvent: true, pages: []string{listOf(20, "", object("b", "ub", 12))}}
	g.link.SetAnswer(s.answer)
	for _, up := range streams {
		_ = up.w.CloseWithError(upstreamtest.ErrDown)
	}
	eventually.True(t, "all watches wait", func() bool { return g.link.Waiting() == len(streams) })
	g.link.Restore()
	for i, text := range []string{expiredEvent, difference, difference} {
		if raw := <-got[i]; raw != text {
			t.Errorf("watch %d gets %q, want %q", i, raw, text)
		}
	}
	if len(s.lists) != 1 {
		t.Errorf("%d lists", len(s.lists))
	}
}

// The API server sends each watch bookmarks of its own.
func TestAWatchOlderThanAnothersBookmarkIsSentTheChangesThatItMissed(t *testing.T) {
	g := newHarness(t)
	g.answerAll(200, listOf(10, "", object("a", "ua", 5)))
	g.do(g.request("GET", path))
	one, two := newStream(), newStream()
	g.answerInTurn(one, two)
	first, second := g.open(g.request("GET", watchFrom10+bookmarks)), g.open(g.request("GET", watchFrom10+bookmarks))
	go one.send(t, bookmark(15))
	first.want(bookmark(15))
	g.flush()
	s := &server{version: "20", asEvent: true, pages: []string{listOf(20, "", object("b", "ub", 16))}}
	g.link.SetAnswer(s.answer)
	_ = two.w.CloseWithError(upstreamtest.ErrDown)
	second.want(eventOf("DELETED", "a", "ua", 10) + eventOf("ADDED", "b", "ub", 16) + bookmark(20))
}

func TestTimeoutSecondsEndsAWatchDuringItsList(t *testing.T) {
	g := newHarness(t)
	c := g.interruptedWatch("&timeoutSeconds=1", &server{version: "20", listHangs: true})
	c.wantEnd(io.EOF)
}
