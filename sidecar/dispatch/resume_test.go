package dispatch

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/sidecar/api/agent"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/sidecar/upstream/upstreamtest"
	"rockpool.dev/tests/eventually"
)

const (
	tooOld    = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old","reason":"Expired","code":410}`
	goneEvent = `{"type":"ERROR","object":` + tooOld + "}\n"
	bookmarks = "&allowWatchBookmarks=true"
)

// object is an item of a list.
func object(name, uid string, rv int) string {
	return fmt.Sprintf(`{"metadata":{"name":%q,"namespace":"shop","uid":%q,"resourceVersion":"%d"}}`, name, uid, rv)
}

// listed is a list, or a page of one.
func listed(rv int, next string, items ...string) string {
	return fmt.Sprintf(`{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"%d","continue":%q},"items":[%s]}`, rv, next, strings.Join(items, ","))
}

// told is an event of such an object.
func told(kind, name, uid string, rv int) string {
	return strings.Replace(event(kind, name, rv), `"uid":"u"`, fmt.Sprintf(`"uid":%q`, uid), 1)
}

func bookmark(rv int) string {
	return fmt.Sprintf(`{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"%d","creationTimestamp":null}}}`, rv) + "\n"
}

// server is upstream after an outage: it has forgotten what was before a version, has a
// list, and streams for what comes after.
type server struct {
	mu      sync.Mutex
	inBand  bool // 410 comes as an event
	knows   string
	pages   []string
	refuses int   // status of lists; 0: 200
	breaks  error // of the first list
	hangs   bool  // when it is listed
	lists   []*http.Request
	streams map[string]stream // by resourceVersion
}

func (s *server) answer(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := func(code int, body string) (*http.Response, error) {
		return response(code, io.NopCloser(strings.NewReader(body))), nil
	}
	q := r.URL.Query()
	switch {
	case !q.Has("watch"):
		s.lists = append(s.lists, r)
		if s.hangs {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}
		if err := s.breaks; err != nil {
			s.breaks = nil
			return response(200, io.NopCloser(io.MultiReader(strings.NewReader(s.pages[0][:len(s.pages[0])/2]), failing{err}))), nil
		}
		if s.refuses != 0 {
			return text(s.refuses, `{"kind":"Status","apiVersion":"v1"}`)
		}
		page := 0
		if q.Has("continue") {
			_, _ = fmt.Sscan(q.Get("continue"), &page)
		}
		return text(200, s.pages[page])
	case q.Get("resourceVersion") == s.knows:
		if _, ok := s.streams[s.knows]; !ok {
			return nil, upstreamtest.ErrDown
		}
		return response(200, s.streams[s.knows]), nil
	case s.inBand:
		return text(200, goneEvent)
	}
	return text(410, tooOld+"\n")
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// forgets makes upstream forget everything before knows.
func (g *harness) forgets(s *server) {
	g.link.SetAnswer(s.answer)
}

// outage opens a watch behind a recorded list of a@5, b@6 and c@7, has it see a change of
// b, and breaks it off.
func (g *harness) outage(query string, s *server) *client {
	g.t.Helper()
	g.says(200, listed(10, "", object("a", "ua", 5), object("b", "ub", 6), object("c", "uc", 7)))
	g.do(g.request("GET", path))
	first := newStream()
	g.streams(first)
	c := g.open(g.request("GET", quiet+query))
	go first.send(g.t, told("MODIFIED", "b", "ub", 11))
	c.want(told("MODIFIED", "b", "ub", 11))
	g.forgets(s)
	go first.w.CloseWithError(upstreamtest.ErrDown)
	return c
}

func TestAWatchWhoseVersionIsForgottenIsToldWhatItHasMissed(t *testing.T) {
	same := []string{object("a", "ua", 5), object("b", "ub", 11), object("c", "uc", 7)}
	tests := map[string]struct {
		query string
		pages []string
		want  string
	}{
		"nothing":                      {"", []string{listed(20, "", same...)}, ""},
		"nothing, and where it is now": {bookmarks, []string{listed(20, "", same...)}, bookmark(20)},
		"an object that was deleted": {"", []string{listed(20, "", same[0], same[1])},
			told("DELETED", "c", "uc", 11)},
		"all of them": {bookmarks, []string{listed(20, "")},
			told("DELETED", "a", "ua", 11) + told("DELETED", "b", "ub", 11) + told("DELETED", "c", "uc", 11) + bookmark(20)},
		"one that was changed": {"", []string{listed(20, "", object("a", "ua", 12), same[1], same[2])},
			told("MODIFIED", "a", "ua", 12)},
		"one that was added": {"", []string{listed(20, "", append(same, object("d", "ud", 13))...)},
			told("ADDED", "d", "ud", 13)},
		"one that was deleted and made anew": {"", []string{listed(20, "", object("a", "other", 14), same[1], same[2])},
			told("DELETED", "a", "ua", 11) + told("ADDED", "a", "other", 14)},
		"all of that, in the order of versions, in pages": {bookmarks,
			[]string{listed(20, "1", object("a", "other", 19)), listed(20, "2", object("b", "ub", 15)), listed(20, "", object("d", "ud", 12), object("e", "ue", 17))},
			told("DELETED", "a", "ua", 11) + told("DELETED", "c", "uc", 11) +
				told("ADDED", "d", "ud", 12) + told("MODIFIED", "b", "ub", 15) + told("ADDED", "e", "ue", 17) + told("ADDED", "a", "other", 19) + bookmark(20)},
	}
	for name, tt := range tests {
		for _, inBand := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, in band %v", name, inBand), func(t *testing.T) {
				t.Parallel()
				g := newHarness(t)
				after := newStream()
				s := &server{inBand: inBand, knows: "20", pages: tt.pages, streams: map[string]stream{"20": after}}
				c := g.outage(tt.query+"&labelSelector=", s)
				go after.send(t, event("ADDED", "z", 21))
				c.want(tt.want + event("ADDED", "z", 21))
				for _, r := range s.lists {
					q := r.URL.Query()
					if r.Header.Get("Authorization") != "Bearer "+g.own || q.Has("watch") || q.Has("resourceVersion") || q.Has("allowWatchBookmarks") || r.Header.Get("Accept") != "application/json" {
						t.Errorf("it was listed with %v as %s", r.URL, r.Header.Get("Accept"))
					}
				}
				if len(s.lists) != len(tt.pages) {
					t.Errorf("%d lists", len(s.lists))
				}
				go after.w.Close()
				c.ends(io.EOF)

				g.link.Cut() // and all of it was recorded
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
					t.Errorf("offline there are %d objects, want %d: %s", n, want, body)
				}
			})
		}
	}
}

func TestWhenItCannotBeKnownWhatAClientHasMissedItHearsThatItsVersionIsGone(t *testing.T) {
	fine := func() *server { return &server{knows: "20", pages: []string{listed(20, "", object("b", "ub", 11))}} }
	tests := map[string]struct {
		query  string
		header [2]string
		before func(*harness) // the watch opens
		change func(*harness, *server)
		lists  int // requests
	}{
		"without a cache":            {before: func(g *harness) { g.Caches.Disk = &cache.Cache{} }},
		"when the list is refused":   {change: func(_ *harness, s *server) { s.refuses = 403 }, lists: 1},
		"when the list does not end": {change: func(_ *harness, s *server) { s.pages[0] = s.pages[0][:len(s.pages[0])-2] }, lists: 1},
		"when it is not a list":      {change: func(_ *harness, s *server) { s.pages[0] = `{"kind":"ConfigMap","metadata":{}}` }, lists: 1},
		"when its kind is none of a list": {change: func(_ *harness, s *server) {
			s.pages[0] = strings.Replace(listed(20, "", object("b", "ub", 12)), "ConfigMapList", "Map", 1)
		}, lists: 1},
		"when the list is in Tables": {change: func(_ *harness, s *server) { s.pages[0] = strings.Replace(s.pages[0], "ConfigMapList", "", 1) }, lists: 1},
		"when only metadata is listed": {change: func(_ *harness, s *server) {
			s.pages[0] = strings.Replace(s.pages[0], "ConfigMapList", "PartialObjectMetadataList", 1)
		}, lists: 1},
		"when the list is older":           {change: func(_ *harness, s *server) { s.pages[0] = listed(9, "", object("b", "ub", 6)) }, lists: 1},
		"when the list is older and empty": {change: func(_ *harness, s *server) { s.pages[0] = listed(9, "") }, lists: 1},
		"when the list has an old object that it did not have": {change: func(_ *harness, s *server) {
			s.pages[0] = listed(20, "", object("b", "ub", 11), object("x", "ux", 8))
		}, lists: 1},
		"when the list has an object as it was before": {change: func(_ *harness, s *server) { s.pages[0] = listed(20, "", object("b", "ub", 6)) }, lists: 1},
		"when versions are no numbers": {change: func(_ *harness, s *server) {
			s.pages[0] = strings.ReplaceAll(listed(20, "", object("b", "ub", 13)), `"13"`, `"v13"`)
		}, lists: 1},
		"when its pages are of two versions": {change: func(_ *harness, s *server) {
			s.pages = []string{listed(20, "1", object("a", "ua", 5)), listed(21, "", object("b", "ub", 11))}
		}, lists: 2},
		"when too much has changed": {change: func(_ *harness, s *server) {
			s.pages[0] = listed(20, "", object("b", strings.Repeat("u", record.DefaultMaxPending), 12))
		}, lists: 1},
		"when a newer list is recorded": {change: func(g *harness, s *server) {
			s.knows = "nothing" // it goes on when all of this is in place
			resp, err := s.answer(g.request("GET", path))
			if err != nil {
				g.t.Error(err)
				return
			}
			g.Caches.Disk.Record(record.Source{Principal: "web", Info: request.Parse(g.request("GET", path)), Path: path, Started: time.Now()}, resp)
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				g.t.Error(err)
			}
		}, lists: 1},
		"when the client would rather have Tables": {header: [2]string{"Accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}},
		"when it acts as somebody else":            {header: [2]string{"Impersonate-User", "root"}},
		"when its reading is not recorded": {before: func(g *harness) {
			app, err := agent.Parse("app")
			if err != nil {
				g.t.Fatal(err)
			}
			g.Agents.Set(app)
		}},
		"when it reads what is not recorded":        {query: "&fieldSelector=data.x=y"},
		"when the answer to the list is compressed": {change: func(_ *harness, s *server) { s.pages[0] = "\x1f\x8b" }, lists: 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := newHarness(t)
			g.says(200, listed(10, "", object("a", "ua", 5), object("b", "ub", 6)))
			g.do(g.request("GET", path))
			first := newStream()
			g.streams(first)
			r := g.request("GET", quiet+tt.query)
			if tt.header[0] != "" {
				r.Header.Set(tt.header[0], tt.header[1])
			}
			if tt.before != nil {
				tt.before(g)
			}
			c := g.open(r)
			go first.send(t, told("MODIFIED", "b", "ub", 11))
			c.want(told("MODIFIED", "b", "ub", 11))
			g.flushed()
			s := fine()
			if tt.change != nil {
				tt.change(g, s)
			}
			g.forgets(s)
			go first.w.CloseWithError(upstreamtest.ErrDown)
			c.want(goneEvent)
			c.ends(io.EOF)
			if len(s.lists) != tt.lists {
				t.Errorf("%d lists, want %d", len(s.lists), tt.lists)
			}
		})
	}
}

func TestAListThatBreaksOffWithTheLinkIsAskedForAgain(t *testing.T) {
	g := newHarness(t)
	after := newStream()
	s := &server{knows: "20", pages: []string{listed(20, "", object("b", "ub", 12))}, breaks: upstreamtest.ErrDown, streams: map[string]stream{"20": after}}
	c := g.outage("", s)
	c.want(told("DELETED", "a", "ua", 11) + told("DELETED", "c", "uc", 11) + told("MODIFIED", "b", "ub", 12))
	if len(s.lists) != 2 {
		t.Errorf("%d lists", len(s.lists))
	}
}

func TestAnErrorThatIsNotTheFirstThingBehindAnOutageIsPassedOn(t *testing.T) {
	g := newHarness(t)
	after := newStream()
	s := &server{knows: "11", streams: map[string]stream{"11": after}}
	c := g.outage("", s)
	go func() {
		after.send(t, event("ADDED", "z", 12)+goneEvent)
		_ = after.w.Close()
	}()
	c.want(event("ADDED", "z", 12) + goneEvent)
	c.ends(io.EOF)
}

func TestAnErrorThatIsNotGoneIsPassedOn(t *testing.T) {
	for _, code := range []string{"500", "504"} {
		g := newHarness(t)
		after := newStream()
		s := &server{knows: "11", streams: map[string]stream{"11": after}}
		c := g.outage("", s)
		go func() {
			after.send(t, strings.Replace(goneEvent, "410", code, 1))
			_ = after.w.Close()
		}()
		c.want(strings.Replace(goneEvent, "410", code, 1))
		c.ends(io.EOF)
	}
}

func TestAWatchThatIsOpenedWithAForgottenVersionIsToldSo(t *testing.T) {
	g := newHarness(t)
	g.says(200, list)
	g.do(g.request("GET", path))
	g.forgets(&server{knows: "20", pages: []string{listed(20, "")}})
	if code, body := g.do(g.request("GET", quiet)); code != 410 || body != tooOld+"\n" {
		t.Errorf("%d %s", code, body)
	}
	g.forgets(&server{knows: "20", inBand: true, pages: []string{listed(20, "")}})
	c := g.open(g.request("GET", quiet))
	c.want(goneEvent)
	c.ends(io.EOF)
}

func TestAWatchThatBeganOfflineIsToldWhatItHasMissed(t *testing.T) {
	for name, url := range map[string]string{
		"behind a list that the cache answered": quiet,
		"with the state of a wider list":        watchlist,
	} {
		t.Run(name, func(t *testing.T) {
			g := newHarness(t)
			read := path
			if url == watchlist {
				read = everywhere
			}
			g.says(200, list)
			g.do(g.request("GET", read))
			g.link.Cut()
			c := g.open(g.request("GET", url))
			if url == watchlist {
				c.line()
				c.line()
			}
			s := &server{knows: "20", pages: []string{listed(20, "", object("b", "ub", 12))}}
			g.forgets(s)
			g.link.Restore()
			c.want(told("DELETED", "a", "u", 10) + told("ADDED", "b", "ub", 12))
		})
	}
}

// Two informers of one program are at one place, and one list is enough for both. But
// what the one may see is not for another that acts as somebody else.
func TestWatchesAtOnePlaceAreToldByOneList(t *testing.T) {
	g := newHarness(t)
	g.says(200, listed(10, "", object("a", "ua", 5)))
	g.do(g.request("GET", path))
	g.flushed()
	streams := []stream{newStream(), newStream(), newStream()}
	g.streams(streams[0], streams[1], streams[2])
	difference := told("DELETED", "a", "ua", 10) + told("ADDED", "b", "ub", 12)
	got := make([]chan string, len(streams))
	for i := range streams {
		r, want := g.request("GET", quiet), difference
		if i == 0 {
			r.Header.Set("Impersonate-User", "root")
			want = goneEvent
		}
		c := g.open(r)
		got[i] = make(chan string)
		go func() {
			buf := make([]byte, len(want))
			n, _ := io.ReadFull(c.body, buf) // what came says enough
			got[i] <- string(buf[:n])
		}()
	}
	g.link.Cut()
	s := &server{knows: "20", inBand: true, pages: []string{listed(20, "", object("b", "ub", 12))}}
	g.forgets(s)
	for _, up := range streams {
		_ = up.w.CloseWithError(upstreamtest.ErrDown)
	}
	eventually.True(t, "all watches wait", func() bool { return g.link.Waiting() == len(streams) })
	g.link.Restore()
	for i, text := range []string{goneEvent, difference, difference} {
		if heard := <-got[i]; heard != text {
			t.Errorf("%d hears %q, want %q", i, heard, text)
		}
	}
	if len(s.lists) != 1 {
		t.Errorf("%d lists", len(s.lists))
	}
}

// Each watch is sent bookmarks of its own.
func TestAWatchThatIsBehindAnothersBookmarkIsToldWhatItHasMissed(t *testing.T) {
	g := newHarness(t)
	g.says(200, listed(10, "", object("a", "ua", 5)))
	g.do(g.request("GET", path))
	one, two := newStream(), newStream()
	g.streams(one, two)
	first, second := g.open(g.request("GET", quiet+bookmarks)), g.open(g.request("GET", quiet+bookmarks))
	go one.send(t, bookmark(15))
	first.want(bookmark(15))
	g.flushed()
	s := &server{knows: "20", inBand: true, pages: []string{listed(20, "", object("b", "ub", 16))}}
	g.forgets(s)
	_ = two.w.CloseWithError(upstreamtest.ErrDown)
	second.want(told("DELETED", "a", "ua", 10) + told("ADDED", "b", "ub", 16) + bookmark(20))
}

func TestTheTimeoutOfAClientHoldsWhileItIsListed(t *testing.T) {
	g := newHarness(t)
	c := g.outage("&timeoutSeconds=1", &server{knows: "20", hangs: true})
	c.ends(io.EOF)
}

func TestProtobufAndMetadataAreToldInTheirForm(t *testing.T) {
	for name, form := range map[string]request.Form{
		"protobuf":             {Format: wire.Protobuf, Representation: request.Object},
		"metadata in protobuf": {Format: wire.Protobuf, Representation: request.Metadata},
		"metadata in JSON":     {Format: wire.JSON, Representation: request.Metadata},
	} {
		t.Run(name, func(t *testing.T) {
			g := newHarness(t)
			f := &forms{form}
			r := func(url string) *http.Request {
				r := g.request("GET", url)
				r.Header.Set("Accept", strings.Replace(form.AcceptList(), "MetadataList", "Metadata", 1))
				return r
			}
			asked := map[string]string{}
			up := newStream()
			known := "10"
			g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
				body := io.ReadCloser(up)
				mediaType := form.Format.WatchMediaType()
				q := r.URL.Query()
				switch {
				case q.Get("limit") != "":
					asked["list"] = r.Header.Get("Accept")
					body, mediaType = io.NopCloser(strings.NewReader(f.list("20", f.item("b", "ub", "12")))), form.Format.MediaType()
				case !q.Has("watch"):
					body, mediaType = io.NopCloser(strings.NewReader(f.list("10", f.item("a", "ua", "5")))), form.Format.MediaType()
				case q.Get("resourceVersion") != known:
					body = io.NopCloser(strings.NewReader(f.gone()))
				}
				resp := response(200, body)
				resp.Header.Set("Content-Type", mediaType)
				return resp, nil
			})
			g.do(r(path))
			c := g.open(r(quiet + bookmarks))
			known = "20"
			first := up
			up = newStream()
			go first.w.CloseWithError(upstreamtest.ErrDown)
			kind, api := f.kind()
			c.want(f.event("DELETED", "a", "ua", "10") + f.event("ADDED", "b", "ub", "12") +
				string(form.Format.AppendEvent(nil, wire.Bookmark, form.Format.Bookmark(kind, api, "20", false))))
			if asked["list"] != form.AcceptList() {
				t.Errorf("it was listed as %q", asked["list"])
			}
			_ = up.w.Close()
			c.ends(io.EOF)
		})
	}
}

// forms makes answers in a form.
type forms struct{ request.Form }

func (f *forms) kind() (kind, apiVersion string) {
	if f.Representation == request.Metadata {
		return wire.PartialKind, wire.PartialAPIVersion
	}
	return "ConfigMap", "v1"
}

func (f *forms) item(name, uid, rv string) []byte {
	if f.Format == wire.JSON {
		kind, api := f.kind()
		return fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q,"metadata":{"name":%q,"namespace":"shop","uid":%q,"resourceVersion":%q}}`, kind, api, name, uid, rv)
	}
	var o metav1.PartialObjectMetadata // the metadata of every message is where this one has it
	o.Name, o.Namespace, o.UID, o.ResourceVersion = name, "shop", types.UID(uid), rv
	raw, err := o.Marshal()
	if err != nil {
		panic(err)
	}
	return raw
}

func (f *forms) event(kind, name, uid, rv string) string {
	object := f.item(name, uid, rv)
	if f.Format == wire.Protobuf {
		k, api := f.kind()
		object = f.Format.AppendTyped(nil, k, api, object)
	}
	return string(f.Format.AppendEvent(nil, kind, object))
}

func (f *forms) list(rv string, items ...[]byte) string {
	kind, api := f.kind()
	if f.Format == wire.JSON {
		return fmt.Sprintf(`{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":%q},"items":[%s]}`, kind+"List", api, rv, items[0])
	}
	size := 0
	for _, item := range items {
		size += wire.ItemSize(len(item))
	}
	body := wire.AppendListHead(nil, kind+"List", api, rv, size)
	for _, item := range items {
		body = wire.AppendItem(body, item)
	}
	return string(wire.AppendEnvelopeEnd(body))
}

func (f *forms) gone() string {
	status := []byte(tooOld)
	if f.Format == wire.Protobuf {
		raw, err := (&metav1.Status{Status: "Failure", Code: 410, Reason: "Expired"}).Marshal()
		if err != nil {
			panic(err)
		}
		status = f.Format.AppendTyped(nil, "Status", "v1", raw)
	}
	return string(f.Format.AppendEvent(nil, wire.Error, status))
}

func TestAWatchThatIsRefusedTheLinkTriesLessAndLessOften(t *testing.T) {
	g := newHarness(t)
	now := clocktesting.NewFakeClock(time.Now())
	g.at(now)
	first := newStream()
	g.streams(first)
	c := g.open(g.request("GET", quiet))
	g.fails(upstreamtest.ErrDown)
	go first.w.CloseWithError(upstreamtest.ErrDown)
	asked := func() int {
		return len(g.link.Requests())
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = c.body.Read(make([]byte, 1))
	}()
	var waits []time.Duration
	last := now.Now()
	for n := 2; n < 8; n++ {
		err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
			if asked() < n && now.HasWaiters() {
				now.Step(100 * time.Millisecond)
			}
			return asked() == n, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		waits = append(waits, now.Since(last).Round(500*time.Millisecond))
		last = now.Now()
	}
	if got := fmt.Sprint(waits); got != "[0s 500ms 1s 2s 4s 8s]" {
		t.Error(got)
	}
	if err := c.body.Close(); err != nil {
		t.Error(err)
	}
	<-ended
}
