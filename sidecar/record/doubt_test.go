package record

import (
	"fmt"
	"strings"
	"testing"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

var configMaps = store.Resource{Principal: who, Resource: "configmaps"}

func TestWhatDoesNotFitIsDoubtfulUntilItIsKnown(t *testing.T) {
	long := strings.Repeat("x", 2<<10)
	for name, tt := range map[string]struct {
		lose func(*harness, *Watch)
		key  store.Key
	}{
		"an object that was read": {func(h *harness, _ *Watch) {
			h.read(h.teeObject(new(h.source(configmaps+"/a")), wire.JSON, answer(strings.NewReader(strings.Replace(cm("a", 9), "v9", long, 1)))))
		}, store.Key{Namespace: "shop", Name: "a"}},
		"an event": {func(h *harness, w *Watch) { h.events(w, "MODIFIED a 11") }, store.Key{Namespace: "shop", Name: "a"}},
		"an item of a list": {func(h *harness, _ *Watch) {
			h.read(h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(listOf(20, strings.Replace(configMap("b", 12), "v12", long, 1))))))
		}, store.Key{Namespace: "shop"}},
		"changes that a list has shown": {func(h *harness, w *Watch) {
			w.Difference([]Change{changed(h.t.(*testing.T), wire.Modified, "a", 15)}, "20")
		}, store.Key{Namespace: "shop"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := idleHarness(t, t.TempDir(), 0)
			h.read(h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(listOf(10, configMap("a", 1))))))
			w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
			defer w.Close()
			h.drain(t.Context())
			h.max = 1
			tt.lose(h, w)
			h.max = DefaultMaxPending
			if !h.Doubtful(configMaps, tt.key) || !h.Doubtful(configMaps, store.Key{}) {
				t.Error("the client's knowledge is not doubtful")
			}
			if h.Doubtful(configMaps, store.Key{Namespace: "other"}) || h.Doubtful(store.Resource{Principal: "other", Resource: "configmaps"}, tt.key) {
				t.Error("something else is doubtful")
			}
			h.Link("online", "any operation")
			h.drain(t.Context())
			if o, _ := h.known(tt.key.Name); o.Says != store.Unknown || h.Doubtful(configMaps, tt.key) {
				t.Errorf("the store has %q", o.Says)
			}
			h.read(h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(listOf(30, configMap("a", 25))))))
			h.drain(t.Context())
			if o, ok := h.known(tt.key.Name); ok {
				t.Errorf("after a list the store has %q", o.Says)
			}
		})
	}
}

func TestDoubtsAreBounded(t *testing.T) {
	h := idleHarness(t, t.TempDir(), 0)
	for i := range 2 * maxDoubts {
		h.doubt(configMaps, store.Key{Namespace: "shop", Name: fmt.Sprint("o", i)}, h.db.Next(), "")
	}
	if n := len(h.doubts.of); n > maxDoubts+1 {
		t.Errorf("%d doubts", n)
	}
	if !h.Doubtful(configMaps, store.Key{Namespace: "shop", Name: "another"}) {
		t.Error("what did not fit is not doubtful")
	}
}

func TestAListThatIsLostInTheStoreIsReadAgain(t *testing.T) {
	h := idleHarness(t, t.TempDir(), 0)
	h.read(h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(listOf(10, configMap("a", 1))))))
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	defer w.Close()
	h.enqueue(broken{})
	h.drain(t.Context())
	for len(h.Stale()) > 0 {
		<-h.Stale()
	}
	for rv := range 100 {
		h.events(w, fmt.Sprintf("MODIFIED a %d", 11+rv))
		h.drain(t.Context())
	}
	select {
	case s := <-h.Stale():
		if s.Source.Info.Path != configmaps {
			t.Errorf("stale: %s", s.Source.Info.Path)
		}
	default:
		t.Error("the watched collection is not listed again")
	}
}

func TestTheDoubtOfAListThatCannotBeRecordedIsWrittenAtOnce(t *testing.T) {
	h := newHarness(t, 0)
	h.list(configmaps, listOf(10, configMap("a", 1)))
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	h.events(w, "MODIFIED a 14")
	h.list(configmaps, listOf(12, configMap("a", 1))) // of a cluster that was restored from a backup
	if h.mustBeListed() == 0 {
		t.Fatal("the list was recorded, so this test shows nothing")
	}
	if _, written := h.known(""); !written {
		t.Error("a kill would leave what is older than the list")
	}
}
