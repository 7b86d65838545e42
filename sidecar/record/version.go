package record

import "strconv"

// compareVersions says how two resourceVersions of one resource relate: -1, 0 or 1, and
// whether that is known. Versions are numbers that grow (KEP-5504), but an
// aggregated API server may use others, which can only be equal.
func compareVersions(a, b string) (int, bool) {
	if a == b {
		return 0, true
	}
	x, okX := parseVersion(a)
	y, okY := parseVersion(b)
	switch {
	case !okX || !okY:
		return 0, false
	case x < y:
		return -1, true
	}
	return 1, true
}

func parseVersion(version string) (uint64, bool) {
	n, err := strconv.ParseUint(version, 10, 63) // SQLite's integers have a sign
	return n, err == nil
}

// verdictOf tells that an event at version rv, which a stream delivered right
// behind version prev, is the next one for a collection at version at: nothing
// that the collection needs lies between.
func verdictOf(prev, rv, at string) verdict {
	if prev == at && rv != at {
		return applied
	}
	behind, ok := compareVersions(rv, at)
	if !ok {
		return gap
	}
	if behind <= 0 {
		return duplicate
	}
	if ahead, ok := compareVersions(prev, at); !ok || ahead > 0 {
		return gap
	}
	return applied
}

type verdict string

const (
	applied   verdict = "applied"
	duplicate verdict = "known" // another stream has brought it already
	gap       verdict = "gap"
	// contradiction: the event should be known and is not. The versions of a
	// restored cluster are given out again.
	contradiction verdict = "contradiction"
)
