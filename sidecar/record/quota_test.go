package record

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// send records the response to a write.
func (h *harness) send(method, url string, status int, body string) {
	h.t.Helper()
	r := httptest.NewRequest(method, url, strings.NewReader("{}"))
	source := Source{Principal: who, Info: request.Parse(r), Path: r.URL.RequestURI(), Started: h.now, Asked: h.db.Next()}
	resp := answer(strings.NewReader(body))
	resp.StatusCode = status
	resp.Header.Set("Content-Type", "application/json")
	h.Record(&source, resp)
	h.read(resp.Body)
}

// sized is a ConfigMap of about a number of bytes.
func sized(name string, rv, size int) string {
	return strings.Replace(configMap(name, rv), fmt.Sprintf("v%d", rv), strings.Repeat(fmt.Sprintf("%08d", rv), size/8), 1)
}

// objects are the recorded objects of a resource, with their versions.
func (h *harness) objects(resource string) (out []string) {
	for _, line := range h.recorded(resource) {
		_, objects, _ := strings.Cut(line, ":")
		out = append(out, strings.Fields(objects)...)
	}
	return out
}

func TestEventsThatAreWrittenAndNeverReadEvictNoList(t *testing.T) {
	h := newHarness(t, 0)
	var services []string
	for i := range 50 {
		services = append(services, sized(fmt.Sprint("s", i), 5, 10_000))
	}
	h.list(configmaps, listOf(10, services...))
	message := strings.Repeat("m", 2000)
	for i := range 2700 {
		h.send(http.MethodPost, "/api/v1/namespaces/shop/events", http.StatusCreated,
			fmt.Sprintf(`{"kind":"Event","apiVersion":"v1","metadata":{"name":"e%d","namespace":"shop","uid":"e%d","resourceVersion":"%d"},"message":%q}`, i, i, 100+i, message))
		if i%100 == 99 {
			h.flush()
		}
	}
	h.flush()
	if got := h.recorded("configmaps"); len(got) != 1 || !strings.HasPrefix(got[0], "complete shop/@10: s0@5 ") {
		t.Errorf("recorded: %.100q", got)
	}
	if events := h.objects("events"); len(events) == 0 || len(events) == 2700 {
		t.Errorf("%d events are recorded, want some", len(events))
	} else if !slices.Contains(events, "e2699@2799") {
		t.Error("the latest event is not recorded")
	}
	if what := h.told.Load(); what == nil || !strings.Contains(*what, "is full") {
		t.Errorf("nobody was told of the eviction: %v", what)
	}
}

func TestAListThatReplacesAllObjectsLeavesTheOldOneUntilItIsWhole(t *testing.T) {
	for _, paged := range []bool{false, true} {
		t.Run(fmt.Sprintf("paged=%v", paged), func(t *testing.T) {
			h := newHarness(t, 0) // with a quota of 4 MiB
			items := func(rv int) (out []string) {
				for i := range 240 {
					out = append(out, sized(fmt.Sprintf("o%03d", i), rv, 10_000))
				}
				return out
			}
			h.list("/api/v1/namespaces/shop/services", strings.Replace(listOf(5, sized("s", 5, 300_000)), "ConfigMapList", "ServiceList", 1))
			h.list(configmaps, listOf(10, items(10)...))
			still := func(version int) {
				t.Helper()
				h.flush()
				want := fmt.Sprintf("complete shop/@%d: o000@%d ", version, version)
				if got := h.recorded("configmaps"); len(got) != 1 || !strings.HasPrefix(got[0], want) || len(strings.Fields(got[0])) != 242 {
					t.Fatalf("recorded: %.100q, want %s", got, want)
				}
			}
			still(10)
			if paged {
				for page := range 8 {
					url, token := configmaps+"?limit=30", fmt.Sprint("p", page+1)
					if page > 0 {
						url += fmt.Sprint("&continue=p", page)
					}
					if page == 7 {
						token = ""
					}
					body := listOf(20, items(20)[page*30:][:30]...)
					h.list(url, strings.Replace(body, `"resourceVersion"`, fmt.Sprintf(`"continue":%q,"resourceVersion"`, token), 1))
					if page < 7 {
						still(10)
					}
				}
			} else {
				text := listOf(20, items(20)...)
				body := h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(text)))
				for range 9 {
					if _, err := io.CopyN(io.Discard, body, int64(len(text)/10)); err != nil {
						t.Fatal(err)
					}
					still(10)
				}
				h.read(body)
			}
			still(20)
			if got := h.objects("services"); len(got) != 1 {
				t.Errorf("another list was evicted meanwhile: %q", got)
			}
			if n := h.count("collection"); n != 2 {
				t.Errorf("%d collections are left", n)
			}
		})
	}
}

func TestASmallDocumentStaysBesideAWatchThatFillsTheQuota(t *testing.T) {
	h := newHarness(t, 0)
	h.send(http.MethodGet, "/apis", http.StatusOK, `{"kind":"APIGroupList","apiVersion":"v1","groups":[ ]}`)
	var items []string
	for i := range 36 {
		items = append(items, sized(fmt.Sprintf("o%02d", i), 10, 99_000))
	}
	h.list(configmaps, listOf(10, items...))
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	defer w.Close()
	for i := range 20 {
		h.events(w, fmt.Sprintf("ADDED p%d %d", i, 11+i))
		big := `{"kind":"ConfigMap","apiVersion":"v1",` + sized(fmt.Sprint("q", i), 100+i, 20_000)[1:]
		m, err := wire.JSON.ParseMeta([]byte(big))
		if err != nil {
			t.Fatal(err)
		}
		w.Event(wire.Event{Type: wire.Added, Object: []byte(big)}, m)
		h.flush()
	}
	if used, bound, err := h.db.Usage(t.Context()); err != nil || used <= bound/10*fullTenths {
		t.Fatalf("%d of %d bytes are used: the test needs more: %v", used, bound, err)
	}
	if !h.hasResponse("/apis") {
		t.Error("/apis was evicted")
	}
	if got := h.recorded("configmaps"); len(got) == 0 || !strings.HasPrefix(got[0], "complete") {
		t.Errorf("the watched collection was evicted: %.100q", got)
	}
}

func TestShortLivedObjectsThatThePodCreatesDoNotEndTheRecording(t *testing.T) {
	h := newHarness(t, 0)
	h.list(configmaps, listOf(10))
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	defer w.Close()
	rv := 10
	event := func(kind, body string) {
		t.Helper()
		m, err := wire.JSON.ParseMeta([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		w.Event(wire.Event{Type: kind, Object: []byte(body)}, m)
	}
	for i := range 6000 {
		name := fmt.Sprint("p", i)
		rv++
		created := `{"kind":"ConfigMap","apiVersion":"v1",` + sized(name, rv, 2000)[1:]
		h.send(http.MethodPost, configmaps, http.StatusCreated, created)
		event(wire.Added, created)
		rv++
		deleted := `{"kind":"ConfigMap","apiVersion":"v1",` + sized(name, rv, 2000)[1:]
		h.send(http.MethodDelete, configmaps+"/"+name, http.StatusOK, deleted)
		event(wire.Deleted, deleted)
		if i%200 == 199 {
			h.flush()
		}
	}
	h.events(w, fmt.Sprintf("ADDED last %d", rv+1))
	h.flush()
	got := h.recorded("configmaps")
	if want := fmt.Sprintf("complete shop/@%d: last@%d", rv+1, rv+1); !slices.Contains(got, want) {
		t.Errorf("recorded: %.200q, want %s", got, want)
	}
	if objects := h.objects("configmaps"); len(objects) > 10 {
		t.Errorf("%d rows of deleted objects are left", len(objects)-1)
	}
}

func TestAWatchedCollectionThatOutgrowsTheCacheIsRecordedObjectByObject(t *testing.T) {
	h := newHarness(t, 0) // with a quota of 4 MiB
	h.list(configmaps, listOf(10))
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	defer w.Close()
	for rv := 11; rv < 111; rv++ {
		body := `{"kind":"ConfigMap","apiVersion":"v1",` + sized(fmt.Sprint("o", rv), rv, 100_000)[1:]
		m, err := wire.JSON.ParseMeta([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		w.Event(wire.Event{Type: wire.Added, Object: []byte(body)}, m)
		h.flush()
	}
	if h.health.logged {
		t.Error("the recording has stopped")
	}
	if objects := h.objects("configmaps"); len(objects) < 10 || !slices.Contains(objects, "o110@110") {
		t.Errorf("%d objects are recorded: %q", len(objects), objects)
	}
	select {
	case <-h.Stale():
	default:
		t.Error("the collection is not listed again")
	}
}

func TestPagedListsThatBreakOffAreGivenUp(t *testing.T) {
	first := func(h *harness, url string) {
		var items []string
		for i := range 50 {
			items = append(items, sized(fmt.Sprint("o", i), 20, 10_000))
		}
		h.list(url, page(20, "next", items...))
	}
	t.Run("one of a scope is left", func(t *testing.T) {
		h := newHarness(t, 0)
		h.list("/api/v1/namespaces/shop/services", strings.Replace(listOf(5, sized("s", 5, 1_000_000)), "ConfigMapList", "ServiceList", 1))
		for range 8 {
			first(h, configmaps+"?limit=50")
		}
		h.flush()
		if got := h.objects("services"); len(got) != 1 {
			t.Errorf("a whole list was evicted: %q", got)
		}
		if n := h.count("collection WHERE state = 'filling'"); n != 1 {
			t.Errorf("%d parts of a list are recorded", n)
		}
	})
	t.Run("they go before whole lists", func(t *testing.T) {
		h := newHarness(t, 0)
		h.list("/api/v1/namespaces/shop/services", strings.Replace(listOf(5, sized("s", 5, 1_000_000)), "ConfigMapList", "ServiceList", 1))
		for i := range 30 {
			first(h, fmt.Sprintf("%s?limit=50&labelSelector=n%%3D%d", configmaps, i))
		}
		h.flush()
		if got := h.objects("services"); len(got) != 1 {
			t.Errorf("a whole list was evicted: %q", got)
		}
	})
	t.Run("the time for the next page ends", func(t *testing.T) {
		h := newHarness(t, 0)
		first(h, configmaps+"?limit=50")
		h.now = h.now.Add(pageLife + time.Second)
		h.giveUp(h.pages.expire(h.now))
		h.flush()
		if n := h.count("collection WHERE state = 'filling'"); n != 0 {
			t.Errorf("%d parts of a list are recorded", n)
		}
	})
}

func TestAListThatDoesNotFitIsRecordedObjectByObject(t *testing.T) {
	for name, watchList := range map[string]bool{"by a list": false, "by initial events": true} {
		t.Run(name, func(t *testing.T) {
			h := newHarnessWithQuota(t, 32<<20, 8<<20)
			core, log := observer.New(zap.WarnLevel)
			h.log, h.name, h.setting = zap.New(core), "memory", "cache.memory-max-size"
			h.oversized.cache = t.Name()
			h.list("/api/v1/namespaces/shop/services", strings.Replace(listOf(5, sized("s", 5, 300_000)), "ConfigMapList", "ServiceList", 1))
			list := func(rv, count int) {
				t.Helper()
				var items []string
				for i := range count {
					items = append(items, sized(fmt.Sprintf("o%02d", i), rv, 700_000))
				}
				if !watchList {
					h.list(configmaps, listOf(rv, items...))
					return
				}
				w := h.Watch(h.source(configmaps+"?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"), wire.JSON)
				defer w.Close()
				for _, item := range items {
					body := `{"kind":"ConfigMap","apiVersion":"v1",` + item[1:]
					m, err := wire.JSON.ParseMeta([]byte(body))
					if err != nil {
						t.Fatal(err)
					}
					w.Event(wire.Event{Type: wire.Added, Object: []byte(body)}, m)
				}
				h.events(w, fmt.Sprintf("END x %d", rv))
				h.flush()
			}
			list(10, 2) // fits
			list(20, 16)
			list(30, 16)
			got := h.recorded("configmaps")
			if len(got) != 1 || !strings.HasPrefix(got[0], "seen /@: ") {
				t.Fatalf("recorded: %q", got)
			}
			if n := len(h.objects("configmaps")); n < 8 || n > 11 {
				t.Errorf("%d objects of 700 kB are recorded in 8 MiB", n)
			}
			if n := len(h.objects("services")); n != 1 {
				t.Error("another collection was evicted for it")
			}
			if o, ok := h.observed(""); !ok || o.Says != store.Unknown {
				t.Errorf("older objects of the namespace count: %v", o.Says)
			}
			lines := log.FilterMessageSnippet("does not fit").All()
			if len(lines) != 1 {
				t.Fatalf("%d lines in the log", len(lines))
			}
			fields := lines[0].ContextMap()
			if fields["collection"] != configmaps || fields["setting"] != "cache.memory-max-size" || fields["bytes"].(int64) < 11_000_000 {
				t.Errorf("the log says %v", fields)
			}
			if n := counter(t, oversizedBytes.WithLabelValues(t.Name(), configmaps)); n < 11_000_000 {
				t.Errorf("the metric says %v", n)
			}
			text := h.Oversized(store.Resource{Principal: who, Resource: "configmaps"}, "")
			if want := configmaps + " takes 11Mi, and does not fit into the cache of 8Mi: raise cache.memory-max-size"; text != want {
				t.Errorf("%q, want %q", text, want)
			}
			list(40, 2)
			if h.Oversized(store.Resource{Principal: who, Resource: "configmaps"}, "") != "" {
				t.Error("it fits now")
			}
			if got := h.recorded("configmaps"); !slices.Contains(got, "complete shop/@40: o00@40 o01@40") {
				t.Errorf("recorded: %q", got)
			}
		})
	}
}

func TestAListOfOneObjectThatDoesNotFitMakesOlderOnesDoubtful(t *testing.T) {
	h := newHarness(t, 0) // with a quota of 4 MiB
	h.list(configmaps, listOf(10, configMap("a", 1)))
	h.list(configmaps, listOf(20, sized("a", 20, 5_000_000)))
	h.want()
	if o, ok := h.observed(""); !ok || o.Says != store.Unknown {
		t.Errorf("older objects of the namespace count: %v", o.Says)
	}
}
