package store

import (
	"cmp"
	"slices"
	"strconv"
)

// Evidence is what one answer of the API server says about one object of a resource, or about all
// objects of a scope, and when it was said.
type Evidence struct {
	Says Says
	// Version is the resourceVersion since which the object is as said. Empty: unknown.
	Version string
	// Floor is the version at which it was still true: that of a collection which confirms it. Of an
	// answer that does not name a version, it is the highest of the resource that was known when it
	// came. Empty: unknown.
	Floor string
	// Asked is DB.Next when the request was sent, Told is DB.Next when its answer came. Both
	// are Told for an event of a watch, unless it may be of the state that the watch begins with.
	Asked, Told int64
	Read        Read
	// Moved means that the evidence is the position of a collection that events have moved on.
	Moved bool
	// UIDs are those of the object; of a deleted one all that it is known to have had. If it is
	// unknown, they are of deleted ones that had its name.
	UIDs []string
}

// Says is the content of evidence.
type Says string

// The kinds of evidence, as in schema.sql.
const (
	Present Says = "present" // the object is this
	Exists  Says = "exists"  // it exists, but was not shown
	Gone    Says = "gone"    // there is no such object
	Unknown Says = "unknown" // it may be anything: nothing from before counts any more
	Refused Says = "refused" // of a scope: it may not be listed
)

// Read says how current an answer must be.
type Read string

// The kinds of reads, as in schema.sql.
const (
	Latest  Read = "latest"  // the state when it was asked
	Lagging Read = "lagging" // any state that a cache of the API server had
	Stream  Read = "stream"  // an event, in the order of the changes
)

// Newer reports whether a is of a later state of the server than b. It is the only comparison of
// evidence. If neither is newer than the other, their order is unknown.
//
// The wall clock has no part in it: the clocks of edge boards jump.
func (a Evidence) Newer(b Evidence) bool {
	switch {
	// Whatever the versions are: a cluster may have been restored from a backup.
	case a.Read == Latest && a.Asked > b.Told:
		return true
	case b.Read == Latest && b.Asked > a.Told:
		return false
	// A UID never comes back.
	case a.deletes(b):
		return true
	case b.deletes(a):
		return false
	case a.Version != "" && b.Version != "" && (a.Says != Gone || b.Says != Exists || b.Floor == ""):
		if order, ok := CompareVersions(a.Version, b.Version); ok {
			// At the version of a, b was still true: versions were assigned twice. But an object that
			// exists may have changed.
			if order > 0 && b.Floor != "" && b.Says != Exists && !NewerVersion(a.Version, b.Floor) {
				return false
			}
			return order > 0 || order == 0 && (b.Says == Unknown || a.Says == b.Says) && a.Told > b.Told
		}
	case a.Version == "" && b.Version != "":
		return false
	case a.Version != "":
		if order, ok := CompareVersions(a.Version, b.Floor); ok && order <= 0 {
			return false
		}
	}
	// No version decides.
	switch {
	case a.Read == Latest: // they were under way together: either may be newer
		return false
	case a.Moved, a.Read == Lagging && b.Read == Latest:
		return false
	}
	return a.Told > b.Told
}

// deletes reports whether a is the deletion of the very object that b shows.
func (a Evidence) deletes(b Evidence) bool {
	return (a.Says == Gone || a.Says == Unknown) && b.Says == Present && slices.ContainsFunc(b.UIDs, func(uid string) bool { return uid != "" && slices.Contains(a.UIDs, uid) })
}

// Agrees reports whether a and b can be true of the same state of an object.
func (a Evidence) Agrees(b Evidence) bool {
	if a.Says == Refused || b.Says == Refused {
		return false
	}
	sameVersion := a.Version != "" && a.Version == b.Version
	switch {
	case a.Says == b.Says && a.Asked == b.Asked && a.Told == b.Told: // it is the same answer
		return true
	case a.Says == Unknown || b.Says == Unknown:
		return sameVersion
	case a.Says == Gone || b.Says == Gone:
		return a.Says == b.Says
	case a.Says == Present && b.Says == Present:
		return sameVersion && slices.Equal(a.UIDs, b.UIDs)
	case len(a.UIDs) > 0 && len(b.UIDs) > 0 && !slices.Equal(a.UIDs, b.UIDs):
		return false
	}
	return sameVersion || a.Version == "" || b.Version == "" // one of them says Exists
}

// Contradiction returns the index of evidence that contradicts a and that a is not newer than. It
// is -1 if a is true as far as all is known.
func (a Evidence) Contradiction(all []Evidence) int {
	return slices.IndexFunc(all, func(b Evidence) bool { return !a.Agrees(b) && !a.Newer(b) })
}

// CompareVersions returns the order of two resourceVersions of one resource, -1, 0 or 1, and
// whether it is known. Versions are growing numbers (KEP-5504). Those of an aggregated API server
// may be something else and can then only be equal.
func CompareVersions(a, b string) (order int, ok bool) {
	if a == b {
		return 0, true
	}
	x, okX := ParseVersion(a)
	y, okY := ParseVersion(b)
	return cmp.Compare(x, y), okX && okY
}

// ParseVersion returns a resourceVersion as a number, if it is one.
func ParseVersion(version string) (n uint64, ok bool) {
	n, err := strconv.ParseUint(version, 10, 64)
	return n, err == nil
}

// NewerVersion reports whether a is known to be a later resourceVersion than b.
func NewerVersion(a, b string) bool {
	order, ok := CompareVersions(a, b)
	return ok && order > 0
}
