package record

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

func TestAListBecomesACompleteCollection(t *testing.T) {
	h := newHarness(t, 0)
	h.list(configmaps+"?limit=500", listOf(10, configMap("a", 1), configMap("b", 2)))
	h.want("complete shop/@10: a@1 b@2")
	h.list(configmaps, listOf(20, configMap("b", 2), configMap("c", 15)))
	h.want("complete shop/@20: b@2 c@15")
	h.list(configmaps, listOf(30))
	h.want("complete shop/@30:")
}

func TestAnIncompleteListIsNotRecorded(t *testing.T) {
	complete := listOf(20, configMap("c", 15))
	for name, body := range map[string]io.Reader{
		"the connection broke":     io.MultiReader(strings.NewReader(complete[:len(complete)-10]), iotest.ErrReader(iotest.ErrTimeout)),
		"the body ended early":     strings.NewReader(complete[:len(complete)-1]),
		"it is a table":            strings.NewReader(`{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"20"},"rows":[]}`),
		"it has no version":        strings.NewReader(`{"kind":"ConfigMapList","apiVersion":"v1","metadata":{},"items":[]}`),
		"an item has no name":      strings.NewReader(listOf(20, `{"metadata":{}}`)),
		"it is not JSON":           strings.NewReader(`<html>`),
		"an item is not an object": strings.NewReader(listOf(20, configMap("c", 15), `7`)),
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, 0)
			h.list(configmaps, listOf(10, configMap("a", 1)))
			h.read(h.teeList(h.source(configmaps), wire.JSON, answer(body)))
			h.want("complete shop/@10: a@1")
		})
	}
}

func TestPagesMakeOneSnapshot(t *testing.T) {
	h := newHarness(t, 0)
	h.list(configmaps, listOf(10, configMap("a", 1)))
	h.list(configmaps+"?limit=1", page(20, "one", configMap("b", 2)))
	h.want("complete shop/@10: a@1")
	h.list(configmaps+"?limit=1&continue=one", page(20, "two", configMap("c", 3)))
	h.want("complete shop/@10: a@1")
	h.list(configmaps+"?limit=1&continue=two", listOf(20, configMap("d", 4)))
	h.want("complete shop/@20: b@2 c@3 d@4")
}

func TestInterruptedPagingKeepsTheOldSnapshotAndWhatTheClientWasTold(t *testing.T) {
	const none = ""
	for name, tt := range map[string]struct {
		rest  func(*harness)
		alone string // the objects that are recorded alone
	}{
		"the next page never comes": {func(*harness) {}, none},
		"the link breaks":           {func(h *harness) { h.GiveUp(store.Resource{Principal: who, Resource: "configmaps"}) }, "seen /@: b@2"},
		"a page is truncated": {func(h *harness) {
			body := listOf(20, configMap("c", 3))
			h.list(configmaps+"?limit=1&continue=one", body[:len(body)-2])
			h.list(configmaps+"?limit=1&continue=one", listOf(20, configMap("c", 3)))
		}, "seen /@: b@2 c@3"},
		"a page has another version":       {func(h *harness) { h.list(configmaps+"?limit=1&continue=one", listOf(21, configMap("c", 3))) }, "seen /@: b@2 c@3"},
		"a page was skipped":               {func(h *harness) { h.list(configmaps+"?limit=1&continue=two", listOf(20, configMap("c", 3))) }, none},
		"the page belongs to another list": {func(h *harness) { h.list(configmaps+"?labelSelector=x&continue=one", listOf(20, configMap("c", 3))) }, none},
		"another list of the scope begins": {func(h *harness) { h.list(configmaps+"?limit=1", page(22, "two", configMap("b", 21))) }, "seen /@: b@2"},
		"too many other lists wait for pages": {func(h *harness) {
			for i := range maxPaged {
				h.list(fmt.Sprintf("%s?limit=1&labelSelector=n%%3D%d", configmaps, i), page(20, "other", configMap("z", 3)))
			}
			h.list(configmaps+"?limit=1&continue=one", listOf(20, configMap("c", 3)))
		}, "seen /@: b@2"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, 0)
			h.list(configmaps, listOf(10, configMap("a", 1)))
			h.list(configmaps+"?limit=1", page(20, "one", configMap("b", 2)))
			tt.rest(h)
			want := []string{"complete shop/@10: a@1"}
			if tt.alone != none {
				want = append(want, tt.alone)
			}
			h.want(want...)
		})
	}
}

func TestAListThatTheClientAbandonsIsNotRecorded(t *testing.T) {
	h := newHarness(t, 0)
	body := h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(listOf(20, configMap("c", 15)))))
	if _, err := io.ReadFull(body, make([]byte, 60)); err != nil {
		t.Fatal(err)
	}
	if err := body.Close(); err != nil {
		t.Fatal(err)
	}
	h.want()
}

func TestEventsAreAppliedToTheCollection(t *testing.T) {
	h := newHarness(t, 0)
	h.list(configmaps, listOf(10, configMap("a", 1), configMap("b", 2)))
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	h.events(w, "ADDED c 11", "MODIFIED a 12", "DELETED b 13", "BOOKMARK x 20")
	h.want("complete shop/@20: a@12 c@11")
}

func TestTwoIdenticalWatchesAreRecordedOnce(t *testing.T) {
	h := newHarness(t, 0)
	h.list(configmaps, listOf(10, configMap("a", 1)))
	one := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	two := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	h.events(one, "MODIFIED a 11", "DELETED a 12")
	h.events(two, "MODIFIED a 11")
	h.want("complete shop/@12:")
	h.events(two, "DELETED a 12", "ADDED a 13")
	h.want("complete shop/@13: a@13")
}

func TestAnEventAfterAGapIsNotApplied(t *testing.T) {
	h := newHarness(t, 0)
	h.list(configmaps, listOf(10, configMap("a", 1)))
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=15"), wire.JSON) // changes between 10 and 15 are unknown
	h.events(w, "MODIFIED a 16", "BOOKMARK x 17")
	h.want("complete shop/@10: a@1", "seen /@: a@16")
	h.list(configmaps, listOf(17, configMap("a", 16)))
	h.events(w, "ADDED b 18")
	h.want("complete shop/@18: a@16 b@18", "seen /@:")
}

func TestTheEventsOfAWatchWithoutAKnownVersionAreRecordedAlone(t *testing.T) {
	h := newHarness(t, 0)
	h.list(configmaps, listOf(10, configMap("a", 1)))
	for _, from := range []string{"", "&resourceVersion=0"} {
		w := h.Watch(h.source(configmaps+"?watch=true"+from), wire.JSON)
		h.events(w, "ADDED a 1", "ADDED c 12")
	}
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=0"), wire.JSON)
	h.events(w, "ADDED b 5") // the list is newer than a state that may lag
	h.want("complete shop/@10: a@1", "seen /@: c@12")
}

func TestAWatchOfTheLatestStateShowsThatTheClusterWasRestored(t *testing.T) {
	for _, event := range []string{"ADDED b 5", "ADDED a 3"} {
		h := newHarness(t, 0)
		h.list(configmaps, listOf(10, configMap("a", 7)))
		w := h.Watch(h.source(configmaps+"?watch=true"), wire.JSON)
		h.events(w, event)
		_, object, _ := strings.Cut(event, " ")
		h.want("seen /@: " + strings.ReplaceAll(object, " ", "@"))
	}
}

func TestAWatchListIsRecordedAtItsBookmark(t *testing.T) {
	h := newHarness(t, 0)
	w := h.Watch(h.source(configmaps+"?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"), wire.JSON)
	h.events(w, "ADDED a 1", "ADDED b 2")
	h.want()
	h.events(w, "END x 10")
	h.want("complete shop/@10: a@1 b@2")
	h.events(w, "DELETED a 11")
	h.want("complete shop/@11: b@2")

	unfinished := h.Watch(h.source(configmaps+"?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"), wire.JSON)
	h.events(unfinished, "ADDED z 20")
	unfinished.Close()
	h.want("complete shop/@11: b@2")
}

func TestAnEmptyWatchListMakesAnEmptyCollection(t *testing.T) {
	h := newHarness(t, 0)
	w := h.Watch(h.source(configmaps+"?watch=true&sendInitialEvents=true"), wire.JSON)
	h.events(w, "END x 10")
	h.want("complete shop/@10:")
}

func TestAnOlderListDoesNotReplaceANewerOne(t *testing.T) {
	h := newHarness(t, 0)
	h.list(configmaps, listOf(20, configMap("a", 15)))
	h.list(configmaps+"?resourceVersion=0", listOf(10, configMap("a", 1))) // from a lagging watch cache
	h.want("complete shop/@20: a@15")

	early := h.source(configmaps) // requested first, read last
	h.now = h.now.Add(time.Minute)
	h.list(configmaps, listOf(30, configMap("a", 25)))
	h.read(h.teeList(early, wire.JSON, answer(strings.NewReader(listOf(20, configMap("a", 15))))))
	h.want("complete shop/@30: a@25")
}

func TestALaterListReplacesAHigherVersionOfARestoredCluster(t *testing.T) {
	h := newHarness(t, 0)
	h.list(configmaps, listOf(2000, configMap("a", 1500)))
	h.now = h.now.Add(time.Minute)
	h.list(configmaps, listOf(1000, configMap("a", 900)))
	h.want("complete shop/@1000: a@900")
}

func TestAListOfARestoredClusterDropsHigherVersionsInEveryScope(t *testing.T) {
	h := newHarness(t, 0)
	h.list("/api/v1/configmaps", listOf(1000, configMap("old", 900), configMap("gone", 950)))
	h.read(h.teeObject(new(h.source(configmaps+"/seen")), wire.JSON, answer(strings.NewReader(cm("seen", 980)))))
	h.flush()
	h.now = h.now.Add(time.Minute)
	h.list(configmaps, listOf(600, configMap("old", 500)))
	h.want("seen /@:", "complete shop/@600: old@500")
}

func TestAVersionThatIsAssignedTwiceIsAContradiction(t *testing.T) {
	h := newHarness(t, 0)
	h.list(configmaps, listOf(100, configMap("a", 50)))
	h.now = h.now.Add(time.Minute)
	h.list(configmaps+"?resourceVersion=0", listOf(60, configMap("a", 50))) // restored, but from a watch cache, which proves nothing
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=60"), wire.JSON)
	h.events(w, "ADDED new 70", "MODIFIED a 99", "ADDED newer 101")
	h.want("seen /@: a@99 newer@101")
}

func TestTwoFirstListsAtOnceAreBothComplete(t *testing.T) {
	h := newHarness(t, 0)
	early, late := listOf(10, configMap("a", 1)), listOf(20, configMap("b", 15))
	one := h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(early)))
	two := h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(late)))
	for _, body := range []io.Reader{one, two} { // the items, but not the end
		if _, err := io.ReadFull(body, make([]byte, len(early)-1)); err != nil {
			t.Fatal(err)
		}
	}
	h.flush()
	h.read(one)
	h.flush()
	h.read(two)
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=20"), wire.JSON)
	h.events(w, "ADDED c 21")
	h.want("complete shop/@21: b@15 c@21")
}

func TestInitialEventsOtherThanAddedEndTheRecording(t *testing.T) {
	h := newHarness(t, 0)
	w := h.Watch(h.source(configmaps+"?watch=true&sendInitialEvents=true"), wire.JSON)
	h.events(w, "ADDED a 1", "MODIFIED a 11", "DELETED a 12", "END x 15")
	h.want("seen /@:") // a was shown alone, and is gone
}

func TestA403HidesTheCollectionsOfItsNamespace(t *testing.T) {
	h := newHarness(t, 0)
	h.list("/api/v1/configmaps", listOf(10, configMap("a", 1)))
	h.list(configmaps, listOf(11, configMap("a", 1)))
	h.list("/api/v1/namespaces/other/configmaps", listOf(12))
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=11"), wire.JSON)
	h.events(w, "ADDED b 13")
	h.forbidden(h.source(configmaps + "?limit=500"))
	h.want("complete /@10: a@1", "complete shop/@13: a@1 b@13", "complete other/@12:")
	if o, ok := h.observed(""); !ok || o.Says != store.Refused {
		t.Errorf("the namespace is %+v", o)
	}
}

func TestAPageOfATableIsNotRecorded(t *testing.T) {
	h := newHarness(t, 0)
	table := func(url, token string) {
		body := fmt.Sprintf(`{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"10","continue":%q},"rows":[]}`, token)
		resp := &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body))}
		h.read(h.teeDocument(h.source(url), nil, resp))
		h.flush()
	}
	table(configmaps+"?limit=1", "more")
	table(configmaps+"?limit=500", "")
	if _, err := h.db.Response(t.Context(), who, configmaps+"?limit=1", ""); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the first page of a table: %v", err)
	}
	if _, err := h.db.Response(t.Context(), who, configmaps+"?limit=500", ""); err != nil {
		t.Errorf("a complete table: %v", err)
	}
}

func TestAFailingOperationDoesNotFailItsGroup(t *testing.T) {
	h := newHarness(t, 0)
	h.list(configmaps, listOf(10, configMap("a", 1)))
	release := h.blockStore() // so that the operations make one group
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	h.events(w, "ADDED b 11")
	h.enqueue(poison{})
	h.events(w, "ADDED c 12")
	release()
	h.want("complete shop/@12: a@1 b@11 c@12")
}

func TestAListWhoseEndFailsLeavesNoRows(t *testing.T) {
	h := newHarness(t, 0)
	release := h.blockStore()
	body := h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(listOf(10, configMap("a", 1)))))
	if _, err := io.ReadFull(body, make([]byte, len(listOf(10, configMap("a", 1)))-1)); err != nil {
		t.Fatal(err)
	}
	release()
	h.flush()
	release = h.blockStore()
	h.read(body)
	h.enqueue(poison{})
	release()
	h.flush()
	h.Link("online", "the next group")
	h.flush()
	if used := h.count("collection") + h.count("object"); used != 0 {
		t.Fatalf("it left %d rows", used)
	}
}

func TestSingleObjectsAreRecorded(t *testing.T) {
	h := newHarness(t, 0)
	h.read(h.teeObject(new(h.source(configmaps+"/a")), wire.JSON, answer(strings.NewReader(cm("a", 7)))))
	h.want("seen /@: a@7")
	h.invalidate(h.source(configmaps + "/a"))
	h.want("seen /@:")
}

func TestAListThatDoesNotFitIsDroppedAndTheOldSnapshotStays(t *testing.T) {
	h := newHarness(t, 64<<10)
	h.list(configmaps, listOf(10, configMap("a", 1)))
	var many []string
	for i := range 2000 {
		many = append(many, configMap(fmt.Sprintf("x%04d", i), i+100))
	}
	release := h.blockStore()
	body := h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(listOf(3000, many...))))
	h.read(body) // does not wait for the store
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	h.events(w, "MODIFIED a 11")
	release()
	h.want("complete shop/@11: a@11")
}

func TestAFullQueueStillTakesInvalidations(t *testing.T) {
	const most = 64 << 10
	h := idleHarness(t, t.TempDir(), most)
	write := func() {
		h.drain(t.Context())
	}
	read := func(name, body string) {
		h.read(h.teeObject(new(h.source(configmaps+"/"+name)), wire.JSON, answer(strings.NewReader(body))))
	}
	h.read(h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(listOf(10, configMap("a", 1))))))
	for _, name := range []string{"a", "b", "c"} {
		read(name, cm(name, 7))
	}
	deleted := h.source(configmaps + "/d")
	h.observe(&deleted, deleted.key(), deleted.evidence(store.Gone, ""))
	write()
	h.now = h.now.Add(time.Second)

	long := strings.Repeat("x", 2<<10)
	for rv := 100; rv < 200; rv++ {
		read("x", strings.Replace(cm("x", rv), fmt.Sprintf("v%d", rv), long, 1))
	}
	if n := h.pending; n < most-2*len(long) {
		t.Fatalf("the queue has only %d bytes", n)
	}
	read("a", strings.Replace(cm("a", 9), "v9", long, 1)) // the client was told
	read("d", strings.Replace(cm("d", 9), "v9", long, 1))
	h.invalidate(h.source(configmaps + "/b"))
	h.forbidden(h.source(configmaps))
	write()
	for _, name := range []string{"a", "b", "d"} {
		if o, _ := h.known(name); o.Says != store.Unknown {
			t.Errorf("%s is %q", name, o.Says)
		}
	}
	if o, _ := h.known(""); o.Says != store.Refused {
		t.Errorf("the namespace is %q", o.Says)
	}

	for range 2 * reserve / overhead {
		h.invalidate(h.source(configmaps + "/b"))
	}
	if n := h.pending; n > most+reserve || n < reserve {
		t.Errorf("%d bytes are pending", n)
	}
}

func TestAFailingStoreKeepsTheOldSnapshot(t *testing.T) {
	h := newHarness(t, 0)
	h.list(configmaps, listOf(10, configMap("a", 1)))
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	body := h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(listOf(20, configMap("a", 1), configMap("b", 2)))))
	if _, err := io.CopyN(io.Discard, body, 200); err != nil {
		t.Fatal(err)
	}
	h.enqueue(broken{})
	h.read(body)
	h.want("complete shop/@10: a@1")
	h.events(w, "MODIFIED a 11")
	h.want("complete shop/@11: a@11")
}

func TestTheQuotaIsEnforcedByEvictingTheLeastUsed(t *testing.T) {
	h := newHarnessWithQuota(t, 0, 16<<20)
	big := strings.Repeat("x", 8<<10)
	const lists = 50 // of 512 KiB each
	for n := range lists {
		h.now = h.now.Add(time.Second)
		var items []string
		for i := range 60 {
			items = append(items, strings.Replace(configMap(fmt.Sprintf("o%d", i), 7), "v7", big, 1))
		}
		url := fmt.Sprintf("%s?labelSelector=n%%3D%d", configmaps, n)
		h.list(url, listOf(20+n, items...))
		if n == 0 {
			w := h.Watch(h.source(url+"&watch=true&resourceVersion=20"), wire.JSON)
			defer w.Close()
			h.events(w, "BOOKMARK x 21")
			h.flush() // before the clock moves
		}
		if n == 1 { // open, without events
			w := h.Watch(h.source(url+"&watch=true&resourceVersion=21"), wire.JSON)
			defer w.Close()
			h.flush()
		}
	}
	used, bound, err := h.db.Usage(t.Context())
	if err != nil || used > bound {
		t.Fatalf("%d of %d bytes: %v", used, bound, err)
	}
	got := h.recorded("configmaps")
	if !strings.HasPrefix(got[0], "complete shop/n=0@21") || !strings.HasPrefix(got[1], "complete shop/n=1@21") {
		t.Errorf("a watched collection was evicted; the first is %.60s", got[0])
	}
	if info, err := os.Stat(h.db.Path()); err != nil || info.Size() > bound {
		t.Errorf("the file has %d bytes of %d: %v", info.Size(), bound, err)
	}
	if last := fmt.Sprintf("complete shop/n=%d@%d", lists-1, 19+lists); !strings.HasPrefix(got[len(got)-1], last) || len(got) >= lists {
		t.Errorf("%d collections of %d, the last is %.60s", len(got), lists, got[len(got)-1])
	}
}

func TestFreeSpaceIsGivenBackToTheDisk(t *testing.T) {
	h := newHarnessWithQuota(t, 0, 16<<20)
	var items []string
	for i := range 100 {
		items = append(items, strings.Replace(configMap(fmt.Sprintf("o%d", i), 7), "v7", strings.Repeat("x", 80<<10), 1))
	}
	h.list(configmaps, listOf(20, items...))
	size := func() int64 {
		checkpoint(t, h.db.Path())
		info, err := os.Stat(h.db.Path())
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	if n := size(); n < 7<<20 {
		t.Fatalf("8 MiB take %d bytes", n)
	}
	h.list(configmaps, listOf(30))
	for range 3 { // each group gives back a part
		h.Link("online", "another group")
		h.flush()
	}
	if n := size(); n > 2<<20 {
		t.Fatalf("an empty list takes %d bytes", n)
	}
}

func TestVerdictOfAnEvent(t *testing.T) {
	for _, tt := range []struct {
		prev, rv, at string
		want         verdict
	}{
		{"10", "11", "10", applied},
		{"9", "11", "10", applied},
		{"9", "10", "10", duplicate},
		{"9", "9", "10", duplicate},
		{"11", "12", "10", gap},
		{"99", "100", "99", applied},
		{"a", "b", "a", applied},
		{"b", "c", "a", gap},
		{"a", "a", "a", duplicate},
	} {
		if got := verdictOf(tt.prev, tt.rv, tt.at); got != tt.want {
			t.Errorf("an event at %s after %s for a collection at %s is %s, want %s", tt.rv, tt.prev, tt.at, got, tt.want)
		}
	}
}

func TestAClientThatClosesAfterTheLastByteHasReadTheWholeBody(t *testing.T) {
	h := newHarness(t, 0)
	text := listOf(20, configMap("a", 15))
	resp := answer(strings.NewReader(text))
	resp.ContentLength = int64(len(text))
	body := h.teeList(h.source(configmaps), wire.JSON, resp)
	if _, err := io.ReadFull(body, make([]byte, len(text))); err != nil {
		t.Fatal(err)
	}
	if err := body.Close(); err != nil { // before the end of the body is read
		t.Fatal(err)
	}
	h.flush()
	h.want("complete shop/@20: a@15")
}

func TestARepeatedReadIsOfTheSameCallerFormAndState(t *testing.T) {
	h := idleHarness(t, t.TempDir(), 0)
	read := func(rv int, change func(*Source)) int {
		source := h.source(configmaps + "/a")
		change(&source)
		h.read(h.teeObject(&source, wire.JSON, answer(strings.NewReader(cm("a", rv)))))
		return len(h.queue)
	}
	same := func(*Source) {}
	for _, step := range []struct {
		name   string
		rv     int
		change func(*Source)
		queued int
	}{
		{"the first", 7, same, 1},
		{"the same again", 7, same, 1},
		{"by another caller", 7, func(s *Source) { s.Principal = "other" }, 2},
		{"in a newer state", 8, same, 3},
		{"in the state before, which a lagging answer may show", 7, same, 4},
		{"the same again", 7, same, 4},
		{"one that any state will do for", 7, func(s *Source) { s.Path += "?resourceVersion=0"; s.Info.ResourceVersion = "0" }, 5},
	} {
		if n := read(step.rv, step.change); n != step.queued {
			t.Errorf("%s: %d operations are queued, want %d", step.name, n, step.queued)
		}
	}
	last := h.queue[len(h.queue)-1].(*putSingle).object
	if want := h.db.Next() - 1; last.Told != want {
		t.Errorf("the last one was told at %d, want %d", last.Told, want)
	}
}

func TestARepeatedReadAllocatesLittle(t *testing.T) {
	h := idleHarness(t, t.TempDir(), 0)
	source, body := h.source(configmaps+"/a"), strings.NewReader("")
	text, buffer := cm("a", 7), make([]byte, 4<<10)
	resp := answer(body)
	n := testing.AllocsPerRun(200, func() {
		body.Reset(text)
		resp.Body, resp.ContentLength = io.NopCloser(body), int64(len(text))
		tee := h.teeObject(&source, wire.JSON, resp)
		if n, err := tee.Read(buffer); n != len(text) || err != nil {
			t.Fatal(n, err)
		}
		_ = tee.Close()
	})
	if len(h.queue) != 1 || n > 5 {
		t.Errorf("%.0f allocations and %d operations, want at most 5 and 1", n, len(h.queue))
	}
}

func TestRepeatedReadsOfAnObjectAreRecordedOnceAGroup(t *testing.T) {
	h := idleHarness(t, t.TempDir(), 0)
	read := func(rv int) {
		h.read(h.teeObject(new(h.source(configmaps+"/a")), wire.JSON, answer(strings.NewReader(cm("a", rv)))))
	}
	queued := func(want int) {
		t.Helper()
		if n := len(h.queue); n != want {
			t.Errorf("%d operations are queued, want %d", n, want)
		}
	}
	for range 5 {
		read(7)
	}
	queued(1)
	read(8)
	read(8)
	queued(2)
	source := h.source(configmaps + "/a")
	h.invalidatePath(&source)
	read(8) // records it again
	queued(4)
	h.drain(t.Context())
	if got := h.recorded("configmaps"); !slices.Equal(got, []string{"seen /@: a@8"}) {
		t.Errorf("recorded %v", got)
	}
}

func TestRepeatedUsesOfACollectionAreRecordedOnceAnInterval(t *testing.T) {
	h := idleHarness(t, t.TempDir(), 0)
	for range 5 {
		h.Used(1)
	}
	if n := len(h.queue); n != 1 {
		t.Errorf("%d uses are queued", n)
	}
	h.now = h.now.Add(useInterval)
	if h.Used(1); len(h.queue) != 2 {
		t.Errorf("%d uses are queued after the interval", len(h.queue))
	}
}
