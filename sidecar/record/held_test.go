package record

import (
	"fmt"
	"strings"
	"testing"

	"rockpool.dev/sidecar/api/wire"
)

func TestEventsThatComeDuringAListAreAppliedBehindIt(t *testing.T) {
	h := newHarness(t, 0)
	h.list(configmaps, listOf(10, configMap("a", 1)))
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=15"), wire.JSON) // the events from 10 to 15 are missing
	defer w.Close()
	h.events(w, "ADDED b 16")
	source := h.source(configmaps) // the server has answered it at 17
	h.events(w, "MODIFIED a 19", "DELETED b 20", "MODIFIED a 21", "BOOKMARK x 22")
	h.flush()
	h.read(h.teeList(source, wire.JSON, answer(strings.NewReader(listOf(17, configMap("a", 1), configMap("b", 16))))))
	h.want("complete shop/@22: a@21", "seen /@:")
	h.events(w, "ADDED c 23")
	h.want("complete shop/@23: a@21 c@23", "seen /@:")
}

func TestHeldEventsAreBoundedAndANewerListTakesTheirPlace(t *testing.T) {
	h := newHarness(t, 0)
	h.list(configmaps, listOf(10))
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=15"), wire.JSON)
	defer w.Close()
	source := h.source(configmaps)
	for i := range 2000 {
		h.events(w, fmt.Sprintf("MODIFIED o%d %d", i%1000, 16+i))
		if i%100 == 0 {
			h.flush()
		}
	}
	h.flush()
	if n := w.behind.bytes; n > maxHeld {
		t.Errorf("%d bytes are held", n)
	}
	h.read(h.teeList(source, wire.JSON, answer(strings.NewReader(listOf(2010, configMap("a", 1))))))
	h.flush()
	if got := h.recorded("configmaps")[0]; !strings.HasPrefix(got, "complete shop/@2015: a@1 o995@2011") {
		t.Errorf("recorded %.100s", got)
	}
}

func TestEventsOfARestoredClustersPastAreNotAppliedBehindItsList(t *testing.T) {
	h := newHarness(t, 0)
	h.list(configmaps, listOf(100, configMap("a", 50)))
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=104"), wire.JSON)
	defer w.Close()
	h.events(w, "MODIFIED a 105")
	h.list(configmaps, listOf(102, configMap("a", 101)))
	h.want("complete shop/@102: a@101", "seen /@:")
}
