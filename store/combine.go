package store

// combine is what is known of a key by two pieces of evidence, of which fresh came later.
func combine(old, fresh Evidence) Evidence {
	switch {
	case old.Says == Exists && fresh.Says == Exists: // both are true, and the version says more
		if old.Newer(fresh) {
			old, fresh = fresh, old
		}
		if fresh.Version == "" {
			fresh.Version = old.Version
		}
		if !fresh.Newer(old) {
			fresh.Floor = later(fresh.Floor, old.Floor)
			fresh = fresh.again(old)
		}
		return fresh
	case old.Says == Refused && fresh.Says == Unknown && !fresh.Newer(old): // a refusal does not cover single objects
	case old.Newer(fresh) && (old.Says != Exists || old.Version != ""):
		return old.over(fresh)
	case old.Says == Refused && fresh.Says == Refused:
		return fresh
	case fresh.Says == Gone && old.Says == Gone:
		fresh.UIDs = append(fresh.UIDs, old.UIDs...)
		if fresh.Version == "" && old.Version != "" { // both are true, and the version says more
			fresh.Floor = later(fresh.Floor, old.Version)
		}
		return fresh.again(old)
	case fresh.Newer(old) && (fresh.Says == Gone || fresh.Version != ""):
		return fresh
	}
	// Without a version, evidence says nothing about the states that the older one excludes.
	doubt := doubtOf(old, fresh)
	if same := old.Asked == fresh.Asked && old.Told == fresh.Told; !same && !fresh.Newer(old) {
		doubt.Told++ // not to be taken for what one of the two answers says: that does not hold
	}
	return doubt
}

// again is evidence that says the same as an older answer. If that was of the latest state, an
// answer that may lag does not make it less.
func (e Evidence) again(old Evidence) Evidence {
	if e.Read != Latest && old.Read == Latest {
		e.Asked, e.Read = old.Asked, old.Read
	}
	return e
}

// over is evidence that supersedes other evidence. Only something newer than both lifts a doubt: what
// it covers was told, too.
func (e Evidence) over(other Evidence) Evidence {
	if e.Says == Unknown && e.Version == "" {
		e.Floor = later(other.Version, e.Floor)
	}
	return e
}

// doubtOf is what is known by two pieces of evidence of which either may be newer.
func doubtOf(a, b Evidence) Evidence {
	doubt := Evidence{Says: Unknown, Asked: max(a.Asked, b.Asked), Told: max(a.Told, b.Told), Read: Latest}
	for _, e := range []Evidence{a, b} {
		doubt.Floor = later(doubt.Floor, later(e.Floor, e.Version))
		if e.Says == Gone || e.Says == Unknown {
			doubt.UIDs = append(doubt.UIDs, e.UIDs...)
		}
	}
	return doubt
}

// later is the later of two versions; the second, if that is not known.
func later(a, b string) string {
	if b == "" || NewerVersion(a, b) {
		return a
	}
	return b
}
