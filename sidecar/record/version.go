package record

import (
	"cmp"
	"strconv"
)

// compareVersions returns the order of two resourceVersions of one resource, -1, 0 or 1, and
// whether it is known. Versions are growing numbers (KEP-5504). Those of an aggregated API server
// may be something else and can then only be equal.
func compareVersions(a, b string) (int, bool) {
	if a == b {
		return 0, true
	}
	x, okX := parseVersion(a)
	y, okY := parseVersion(b)
	return cmp.Compare(x, y), okX && okY
}

func parseVersion(version string) (uint64, bool) {
	n, err := strconv.ParseUint(version, 10, 63) // SQLite's integers are signed
	return n, err == nil
}

// verdictOf decides about an event at version rv, whose stream delivered it directly after version
// prev, for a collection at version at. The event is applied if the collection misses nothing that
// happened before it.
func verdictOf(prev, rv, at string) verdict {
	if prev == at && rv != at {
		return applied
	}
	order, ok := compareVersions(rv, at)
	if !ok {
		return gap
	}
	if order <= 0 {
		return duplicate
	}
	if order, ok := compareVersions(prev, at); !ok || order > 0 {
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
