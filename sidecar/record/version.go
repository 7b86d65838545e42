package record

import "rockpool.dev/store"

// verdictOf decides about an event at version rv, whose stream delivered it directly after version
// prev, for a collection at version at. The event is applied if the collection misses nothing that
// happened before it.
func verdictOf(prev, rv, at string) verdict {
	if prev == at && rv != at {
		return applied
	}
	order, ok := store.CompareVersions(rv, at)
	if !ok {
		return gap
	}
	if order <= 0 {
		return duplicate
	}
	if order, ok := store.CompareVersions(prev, at); !ok || order > 0 {
		return gap
	}
	return applied
}

// verdict is the result of an event or a difference. Its values are those of eventsTotal.
type verdict string

const (
	applied    verdict = "applied"
	superseded verdict = "superseded" // applied as a step
	duplicate  verdict = "known"      // another stream has delivered it already
	gap        verdict = "gap"
	unlisted   verdict = "unlisted" // there is no collection
	// contradiction: the event ought to be recorded already and is not. A cluster restored from a
	// backup assigns versions a second time.
	contradiction verdict = "contradiction"
)
