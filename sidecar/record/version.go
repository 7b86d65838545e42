package record

import "strconv"

// order says how two resourceVersions of one resource relate: -1, 0 or 1, and
// whether that is known. Versions are numbers that grow (KEP-5504), but an
// aggregated API server may use others, which can only be equal.
func order(a, b string) (int, bool) {
	if a == b {
		return 0, true
	}
	x, okX := number(a)
	y, okY := number(b)
	switch {
	case !okX || !okY:
		return 0, false
	case x < y:
		return -1, true
	}
	return 1, true
}

func number(version string) (uint64, bool) {
	n, err := strconv.ParseUint(version, 10, 63) // SQLite's integers have a sign
	return n, err == nil
}

// follows tells that an event at version rv, which a stream delivered right
// behind version prev, is the next one for a collection at version at: nothing
// that the collection needs lies between.
func follows(prev, rv, at string) verdict {
	if prev == at && rv != at {
		return next
	}
	behind, ok := order(rv, at)
	if !ok {
		return gap
	}
	if behind <= 0 {
		return known
	}
	if ahead, ok := order(prev, at); !ok || ahead > 0 {
		return gap
	}
	return next
}

type verdict string

const (
	next  verdict = "applied"
	known verdict = "known" // another stream has brought it already
	gap   verdict = "gap"
	// contradiction: the event should be known and is not. The versions of a
	// restored cluster are given out again.
	contradiction verdict = "contradiction"
)
