package record

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

func TestAListIsRecordedAsItCame(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			h := newHarness(t, 0)
			r := rand.New(rand.NewPCG(seed, 1))
			versions := make([]int, 12) // of each object; 0: it does not exist
			w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=1"), wire.JSON)
			defer w.Close()
			for rv := 10; rv < 50; rv++ {
				i, changes := r.IntN(len(versions)), r.IntN(3) > 0
				if changes {
					versions[i] = []int{0, rv, rv}[r.IntN(3)]
				}
				if r.IntN(3) == 0 { // a watch may tell it first
					kind := "MODIFIED"
					if versions[i] == 0 {
						kind = "DELETED"
					}
					if changes {
						h.events(w, fmt.Sprintf("%s o%02d %d", kind, i, rv))
					}
				}
				var items, want []string
				for i, version := range versions {
					if version > 0 {
						items = append(items, configMap(fmt.Sprintf("o%02d", i), version))
						want = append(want, fmt.Sprintf(" o%02d@%d", i, version))
					}
				}
				url := configmaps
				if n := len(items); n > 1 && r.IntN(4) == 0 { // in two pages
					h.list(configmaps+"?limit=5", page(rv, "more", items[:n/2]...))
					url, items = configmaps+"?limit=5&continue=more", items[n/2:]
				}
				h.list(url, listOf(rv, items...))
				all := h.recorded("configmaps")
				all = slices.DeleteFunc(all, func(s string) bool { return !strings.HasPrefix(s, "complete") })
				if got := strings.Join(all, ";"); got != fmt.Sprintf("complete shop/@%d:%s", rv, strings.Join(want, "")) {
					t.Fatalf("version %d: recorded %s, want %v", rv, got, want)
				}
			}
		})
	}
}

func TestAnItemThatIsTheSameIsNotQueued(t *testing.T) {
	h := idleHarness(t, t.TempDir(), 0)
	list := func(rv int, items ...string) (queued int) {
		h.read(h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(listOf(rv, items...)))))
		queued = len(h.queue)
		h.drain(t.Context())
		return queued
	}
	a, b, c := configMap("a", 1), configMap("b", 2), configMap("c", 3)
	for _, tt := range []struct {
		rv    int
		items []string
		want  int
	}{
		{10, []string{a, b, c}, 4},
		{11, []string{a, b, c}, 1},
		{12, []string{a, configMap("b", 12), c}, 4}, // a, b, c, and the end
		{13, []string{a, configMap("b", 12), c}, 1},
		{14, []string{a, c}, 3},
	} {
		if got := list(tt.rv, tt.items...); got != tt.want {
			t.Errorf("%d operations are queued of the list at version %d, want %d", got, tt.rv, tt.want)
		}
	}
	h.wantRecorded("complete shop/@14: a@1 c@3")
}

// wantRecorded is want without a goroutine of Run.
func (h *harness) wantRecorded(want ...string) {
	h.t.Helper()
	if got := h.recorded("configmaps"); !slices.Equal(got, want) {
		h.t.Fatalf("recorded %v, want %v", got, want)
	}
}

func TestAListThatHasNotChangedWaitsForOtherOperations(t *testing.T) {
	h := newHarness(t, 0)
	list := func(url string, rv int, items ...string) {
		h.read(h.teeList(h.source(url), wire.JSON, answer(strings.NewReader(listOf(rv, items...)))))
	}
	waits := func(what string, n int) {
		t.Helper()
		if !h.queued(n) {
			t.Fatal(what)
		}
	}
	a := configMap("a", 1)
	list(configmaps, 10, a)
	waits("a first list waits", 0)
	list(configmaps, 11, a)
	list(configmaps, 12, a)
	waits("one that has not changed does not wait", 2)

	h.list(otherConfigMaps, listOf(13, a))
	waits("what was flushed waits", 0)
	list(configmaps, 14, a)
	waits("one waits although something else was told since", 0)
	list(otherConfigMaps, 15, a)
	list(configmaps, 16, a)
	waits("lists that have not changed keep each other from waiting", 2)

	list(configmaps, 18, a)
	list(configmaps, 19, configMap("a", 19))
	waits("one that has changed waits", 0)
	h.want("complete shop/@19: a@19", "complete other/@15: a@1")

	list(configmaps, 20, configMap("a", 19))
	h.want("complete shop/@20: a@19", "complete other/@15: a@1") // who reads does not wait

	waits("what was flushed waits", 0)
	list(configmaps, 9, configMap("a", 19))
	waits("one of an older version waits", 0)
}

func TestAnEmptyListThatHasNotChangedWaits(t *testing.T) {
	h := newHarness(t, 0)
	h.list(configmaps, listOf(10))
	if !h.queued(0) {
		t.Fatal("the first list waits")
	}
	h.read(h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(listOf(11)))))
	if !h.queued(1) {
		t.Fatal("the next one does not wait")
	}
	h.want("complete shop/@11:")
}

func TestAListThatHasNotChangedWritesNothing(t *testing.T) {
	h := newHarness(t, 0)
	var items []string
	for i := range 200 {
		items = append(items, configMap(fmt.Sprintf("o%03d", i), 1+i))
	}
	h.list(configmaps, listOf(1000, items...))
	if !h.queued(0) {
		t.Fatal("the first list waits")
	}
	before := written(t)
	for rv := range 20 {
		h.read(h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(listOf(1001+rv, items...)))))
	}
	if !h.queued(20) {
		t.Fatal("the lists do not wait")
	}
	if n := written(t) - before; n >= 4096 { // a page; the runtime wakes its threads by writes
		t.Errorf("%d bytes were written", n)
	}
	h.now = h.now.Add(time.Minute)
	h.flush()
	if n := written(t) - before; n > 64<<10 {
		t.Errorf("%d bytes were written for all of them", n)
	}
	if got := h.recorded("configmaps"); len(got) != 1 || !strings.HasPrefix(got[0], "complete shop/@1020:") {
		t.Errorf("recorded %.40s", got)
	}
}

func TestAListWhoseOutlineHasMisledIsRecordedTheNextTime(t *testing.T) {
	h := newHarness(t, 0)
	a, b := configMap("a", 1), configMap("b", 2)
	h.list(configmaps, listOf(10, a, b))
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	h.events(w, "MODIFIED a 14")
	h.want("complete shop/@14: a@14 b@2")
	// The cluster is restored from a backup: the bytes are those of the list before the event.
	h.list(configmaps, listOf(12, a, b))
	if h.mustBeListed() == 0 {
		t.Fatal("nothing is listed again, so this test shows nothing")
	}
	h.list(configmaps, listOf(13, a, b))
	h.want("complete shop/@13: a@1 b@2")
}

func TestAListThatIsTooLargeDoesNotStayIncoming(t *testing.T) {
	h := newHarness(t, 0)
	big := func(i int) string {
		return strings.Replace(configMap(fmt.Sprint("big", i), 20+i), `"data":{`, fmt.Sprintf(`"data":{"big":%q,`, strings.Repeat("x", 1<<20)), 1)
	}
	h.list(configmaps, listOf(10, configMap("a", 1), configMap("b", 2), configMap("c", 3), configMap("d", 4)))
	h.list(configmaps, listOf(30, configMap("a", 1), big(1), big(2), big(3), big(4), configMap("b", 2), configMap("c", 25), configMap("d", 4)))
	if h.Oversized(store.Resource{Principal: who, Resource: "configmaps"}, "shop") == "" {
		t.Fatal("the list fits, so this test shows nothing")
	}
	if h.listIncoming() {
		t.Error("the list holds all others back although it has ended")
	}
}
