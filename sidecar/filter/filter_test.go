package filter

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/api/filters"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/filter/keep"
	"rockpool.dev/sidecar/tally"
	"rockpool.dev/tests/eventually"
)

var formats = []wire.Format{wire.JSON, wire.Protobuf}

// get returns the status code and body of an answer.
func get(t *testing.T, f http.RoundTripper, uri, accept string) (int, string) {
	t.Helper()
	resp, err := f.RoundTrip(newRequest(uri, accept))
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return int(status.Status().Code), status.Status().Message
	}
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

func bare(t testing.TB, format wire.Format, s *server, resource, key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := encoding{t: t, format: format, kind: kinds[resource]}
	return string(e.bare(s.objects[resource][key]))
}

func TestAListShowsEndpointsOfThisNodeOnly(t *testing.T) {
	for _, format := range formats {
		s := newServer(t)
		s.put(newService("web", topology("kubernetes.io/hostname")))
		s.put(newSlice("web-a", "web", nodeName, "edge-2"))
		s.put(newSlice("db-a", "db", "edge-2"))
		f := newFilter(t, s)
		c := newClient(t, f, pathSlices, format)
		want := newSlice("web-a", "web", nodeName)
		want.ResourceVersion, want.UID = "102", "uid-web-a"
		e := encoding{t: t, format: format}
		c.holds("a list", map[string]string{"shop/web-a": string(e.bare(want)), "shop/db-a": bare(t, format, s, "endpointslices", "shop/db-a")})
	}
}

func TestAGETOfAnObjectThatIsFilteredAwayIs404(t *testing.T) {
	for _, format := range formats {
		s := newServer(t)
		s.put(newService("web", map[string]string{"svc.openyurt.io/discard": "true"}))
		s.put(newService("db", nil))
		f := newFilter(t, s)
		code, body := get(t, f, "/api/v1/namespaces/shop/services/web", format.MediaType())
		if code != http.StatusNotFound || !strings.Contains(body, "not found") {
			t.Errorf("%s: %d %q", format.MediaType(), code, body)
		}
		if code, body = get(t, f, "/api/v1/namespaces/shop/services/db", format.MediaType()); code != http.StatusOK || !strings.Contains(body, "db") {
			t.Errorf("%s: %d %q", format.MediaType(), code, body)
		}
	}
}

func TestRowsOfATableAreLeftOutByTheObjectInThem(t *testing.T) {
	s := newServer(t)
	s.put(newService("web", topology("kubernetes.io/hostname")))
	s.put(newService("gone", map[string]string{"svc.openyurt.io/discard": "true"}))
	s.put(newSlice("gone-a", "gone", nodeName))
	s.put(newSlice("web-a", "web", nodeName))
	f := newFilter(t, s)
	const table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
	code, body := get(t, f, pathSlices, table)
	var got struct {
		Kind string
		Rows []struct{ Cells []string }
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil || code != http.StatusOK || got.Kind != "Table" || len(got.Rows) != 1 || got.Rows[0].Cells[0] != "web-a" {
		t.Errorf("%d %s %v", code, body, err)
	}
	if code, body = get(t, f, "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/gone-a", table); code != http.StatusNotFound {
		t.Errorf("%d %s", code, body)
	}
}

func TestATableWithoutObjectsPassesAndTheLogSaysSo(t *testing.T) {
	s := newServer(t)
	s.put(newService("gone", map[string]string{"svc.openyurt.io/discard": "true"}))
	const body = `{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"7"},"rows":[{"cells":["gone-a"],"object":null},{"cells":["gone-b"]}]}`
	f := newFilter(t, &fixed{s, []byte(body), wire.MediaTypeJSON, pathSlices})
	core, lines := observer.New(zap.InfoLevel)
	f.Repeated = tally.New(zap.New(core), clock.RealClock{})
	if code, got := get(t, f, pathSlices+"?includeObject=None", "application/json;as=Table;v=v1;g=meta.k8s.io"); code != http.StatusOK || got != body {
		t.Errorf("%d %s", code, got)
	}
	if n := lines.FilterMessageSnippet("its rows pass unchanged").Len(); n != 1 {
		t.Errorf("%d lines in the log, want 1", n)
	}
}

func TestOtherResourcesPassAsTheyAre(t *testing.T) {
	s := newServer(t)
	s.put(newNode("edge-1", ""))
	f := newFilter(t, s)
	r := newRequest("/api/v1/nodes", wire.MediaTypeJSON)
	resp, err := f.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := resp.Body.(*list); ok || resp.Header.Get("Content-Type") != wire.MediaTypeJSON {
		t.Error("the body is touched")
	}
	_ = resp.Body.Close()
}

func TestAClientWhosePastIsUnknownListsAgain(t *testing.T) {
	s := newServer(t)
	f := newFilter(t, s)
	if code, body := get(t, f, pathSlices+"?watch=true&resourceVersion=100", wire.MediaTypeJSON); code != http.StatusGone {
		t.Errorf("watch: %d %s", code, body)
	}
	if code, body := get(t, f, pathSlices+"?limit=5&continue=x", wire.MediaTypeJSON); code != http.StatusGone {
		t.Errorf("page: %d %s", code, body)
	}
}

func TestAWatchIsCorrected(t *testing.T) {
	local := topology("kubernetes.io/hostname")
	pool := topology("openyurt.io/nodepool")
	zone := topology("kubernetes.io/zone")
	for name, x := range map[string]struct {
		before func(*server)
		change func(*testing.T, *server, *Filter)
		want   []string // nodes of the endpoints after the change; nil: the slice is gone
	}{
		"when a Service gets its annotation": {
			func(s *server) { s.put(newService("web", nil)) },
			func(_ *testing.T, s *server, _ *Filter) { s.put(newService("web", local)) }, []string{nodeName},
		},
		"when a Service loses its annotation": {
			func(s *server) { s.put(newService("web", local)) },
			func(_ *testing.T, s *server, _ *Filter) { s.put(newService("web", nil)) }, []string{nodeName, "edge-2", "edge-3"},
		},
		"when a Service with an annotation is deleted": {
			func(s *server) { s.put(newService("web", local)) },
			func(_ *testing.T, s *server, _ *Filter) { s.remove("services", "shop/web") }, []string{nodeName, "edge-2", "edge-3"},
		},
		"when a Service is discarded": {
			func(s *server) { s.put(newService("web", nil)) },
			func(_ *testing.T, s *server, _ *Filter) {
				s.put(newService("web", map[string]string{"svc.openyurt.io/discard": "true"}))
			}, nil,
		},
		"when a node joins the pool": {
			func(s *server) {
				s.put(newService("web", pool))
				s.put(newNode(nodeName, "p"))
				s.put(newNode("edge-2", ""))
			},
			func(_ *testing.T, s *server, _ *Filter) { s.put(newNode("edge-2", "p")) }, []string{nodeName, "edge-2"},
		},
		"when this node changes its pool": {
			func(s *server) {
				s.put(newService("web", pool))
				s.put(newNode(nodeName, "p"))
				s.put(newNode("edge-2", "p"))
				s.put(newNode("edge-3", "q"))
			},
			func(_ *testing.T, s *server, _ *Filter) { s.put(newNode(nodeName, "q")) }, []string{nodeName, "edge-3"},
		},
		"when this node changes its zone": {
			func(s *server) {
				s.put(newService("web", zone))
				s.put(inZone(newNode(nodeName, ""), "east"))
				s.put(inZone(newNode("edge-2", ""), "east"))
				s.put(inZone(newNode("edge-3", ""), "west"))
			},
			func(_ *testing.T, s *server, _ *Filter) { s.put(inZone(newNode(nodeName, ""), "west")) }, []string{nodeName, "edge-3"},
		},
		"when another node leaves the zone": {
			func(s *server) {
				s.put(newService("web", zone))
				s.put(inZone(newNode(nodeName, ""), "east"))
				s.put(inZone(newNode("edge-2", ""), "east"))
				s.put(inZone(newNode("edge-3", ""), "east"))
			},
			func(_ *testing.T, s *server, _ *Filter) { s.put(inZone(newNode("edge-3", ""), "west")) }, []string{nodeName, "edge-2"},
		},
		"when a node joins the NodePool": {
			func(s *server) {
				s.put(newService("web", pool))
				s.put(newNode(nodeName, ""))
				s.put(newPool("p", nodeName))
			},
			func(_ *testing.T, s *server, _ *Filter) { s.put(newPool("p", nodeName, "edge-2")) }, []string{nodeName, "edge-2"},
		},
		"when this node moves to another NodePool": {
			func(s *server) {
				s.put(newService("web", pool))
				s.put(newNode(nodeName, ""))
				s.put(newPool("p", nodeName, "edge-2"))
				s.put(newPool("q", "edge-3"))
			},
			func(_ *testing.T, s *server, _ *Filter) {
				s.put(newPool("p", "edge-2"))
				s.put(newPool("q", "edge-3", nodeName))
			}, []string{nodeName, "edge-3"},
		},
		"when the NodePool is deleted": {
			func(s *server) {
				s.put(newService("web", pool))
				s.put(newNode(nodeName, ""))
				s.put(newPool("p", nodeName, "edge-2"))
			},
			func(_ *testing.T, s *server, _ *Filter) { s.remove("nodepools", "/p") }, []string{nodeName},
		},
		"when the filter is taken away": {
			func(s *server) { s.put(newService("web", local)) },
			func(t *testing.T, _ *server, f *Filter) { f.Set(choose(t, "-servicetopology")) }, []string{nodeName, "edge-2", "edge-3"},
		},
		"when the nodes are refused and a setting names the pool": {
			func(s *server) { s.put(newService("web", pool)); s.refused["nodes"] = true },
			func(t *testing.T, _ *server, f *Filter) {
				next := choose(t, "servicetopology")
				next.Pools, _ = parsePools(t, "p="+nodeName+",edge-2")
				f.Set(next)
			}, []string{nodeName, "edge-2"},
		},
	} {
		for _, format := range formats {
			t.Run(name+" in "+format.MediaType(), func(t *testing.T) {
				s := newServer(t)
				x.before(s)
				s.put(newSlice("web-a", "web", nodeName, "edge-2", "edge-3"))
				f := newFilter(t, s)
				c := newClient(t, f, pathSlices, format)
				c.waitFor("the first list", func() bool { return c.lists == 1 })
				x.change(t, s, f)
				want := map[string]string{}
				if x.want != nil {
					o := newSlice("web-a", "web", x.want...)
					s.mu.Lock()
					o.UID = "uid-web-a"
					o.ResourceVersion = s.objects["endpointslices"]["shop/web-a"].GetResourceVersion()
					s.mu.Unlock()
					e := encoding{t: t, format: format}
					want["shop/web-a"] = string(e.bare(o))
				}
				c.holds("after the change", want)
				if c.lists != 1 {
					t.Errorf("the client had to list %d times", c.lists)
				}
			})
		}
	}
}

func TestARuleKeepsObjectsForAClientThatPrefersProtobuf(t *testing.T) {
	s := newServer(t)
	s.put(newService("web", map[string]string{"site": "a"}))
	s.put(newService("db", map[string]string{"site": "b"}))
	f := newFilter(t, s)
	next := Settings{}
	var err error
	if next.Rules, err = filters.ParseRules("services: object.metadata.annotations['site'] == 'a'"); err != nil {
		t.Fatal(err)
	}
	if next.Conditions, err = keep.Conditions(next.Rules); err != nil {
		t.Fatal(err)
	}
	f.Set(next)
	code, body := get(t, f, pathServices, "application/vnd.kubernetes.protobuf,application/json")
	if code != http.StatusOK || !strings.Contains(body, `"name":"web"`) || strings.Contains(body, `"name":"db"`) {
		t.Errorf("%d %s", code, body)
	}
	// A client that takes no JSON gets everything.
	if code, body := get(t, f, pathServices, "application/vnd.kubernetes.protobuf"); code != http.StatusOK || !strings.Contains(body, "db") {
		t.Errorf("%d %q", code, body)
	}
}

func TestAnObjectThatIsDeletedDuringACorrectionIsDeletedForTheClient(t *testing.T) {
	for _, format := range formats {
		s := newServer(t)
		s.put(newService("web", nil))
		s.put(newSlice("web-a", "web", nodeName))
		f := newFilter(t, s)
		c := newClient(t, f, pathSlices, format)
		c.waitFor("the first list", func() bool { return c.lists == 1 && len(c.held) == 1 })
		var once sync.Once
		s.mu.Lock()
		s.listing = func(resource string) {
			if resource == "endpointslices" {
				once.Do(func() { s.remove("endpointslices", "shop/web-a") })
			}
		}
		s.mu.Unlock()
		s.put(newService("web", map[string]string{"svc.openyurt.io/discard": "true"}))
		c.holds("after the correction", map[string]string{})
	}
}

func TestACorrectionThatCannotBeReadIsTriedAgain(t *testing.T) {
	s := newServer(t)
	s.put(newService("web", nil))
	s.put(newSlice("web-a", "web", nodeName, "edge-2"))
	f := newFilter(t, s)
	c := newClient(t, f, pathSlices, wire.JSON)
	c.waitFor("the first list", func() bool { return c.lists == 1 && len(c.held) == 1 })
	eventually.True(t, "an open watch", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.watches) == 1
	})
	s.setDown(true)
	before := testutil.ToFloat64(corrections.WithLabelValues("deferred"))
	s.put(newService("web", topology("kubernetes.io/hostname")))
	eventually.True(t, "a deferred correction", func() bool { return testutil.ToFloat64(corrections.WithLabelValues("deferred")) > before })
	s.setDown(false)
	c.waitFor("the correction", func() bool { return !strings.Contains(c.held["shop/web-a"], "edge-2") })
	if c.lists != 1 {
		t.Errorf("the client had to list %d times", c.lists)
	}
}

func TestAnUnfilteredWatchThatAFilterComesToTouchBreaksOff(t *testing.T) {
	s := newServer(t)
	s.put(newService("web", topology("kubernetes.io/hostname")))
	s.put(newSlice("web-a", "web", nodeName, "edge-2"))
	f := newFilter(t, s)
	f.Set(choose(t, "-servicetopology,-discardcloudservice,-forwardkubesvctraffic"))
	c := newClient(t, f, pathSlices, wire.JSON)
	c.waitFor("the first list", func() bool { return c.lists == 1 && strings.Contains(c.held["shop/web-a"], "edge-2") })
	f.Set(choose(t, "servicetopology"))
	c.waitFor("the second list", func() bool { return c.lists == 2 && !strings.Contains(c.held["shop/web-a"], "edge-2") })
}

// asked notes the encodings that requests ask for, by path.
type asked struct {
	next http.RoundTripper

	mu        sync.Mutex
	encodings map[string]string
}

func (a *asked) RoundTrip(r *http.Request) (*http.Response, error) {
	if encoding := r.Header.Get("Accept-Encoding"); encoding != "" {
		a.mu.Lock()
		a.encodings[r.URL.Path] = encoding
		a.mu.Unlock()
	}
	return a.next.RoundTrip(r)
}

func TestOnlyWhatIsNotFilteredMayBeCompressed(t *testing.T) {
	s := newServer(t)
	s.put(newService("db", nil))
	s.put(newNode("edge-1", ""))
	f := newFilter(t, s)
	next := &asked{next: f.Next, encodings: map[string]string{}}
	f.Next = next
	for path, want := range map[string]string{"/api/v1/nodes": "gzip", "/api/v1/services": ""} {
		r := newRequest(path, wire.MediaTypeJSON)
		r.Header.Set("Accept-Encoding", "gzip")
		resp, err := f.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Error(err)
		}
		_ = resp.Body.Close()
		next.mu.Lock()
		if got := next.encodings[path]; got != want {
			t.Errorf("%s is asked for with the encoding %q, want %q", path, got, want)
		}
		next.mu.Unlock()
	}
}
