package model

import (
	"slices"
	"strconv"
)

// observation is something that a principal was told about one object: it is this, or it is not
// there. What it was told is the server's state at a revision.
type observation struct {
	at         int    // the revision
	sent, told int    // ticks: when the request was sent, and when its answer was read
	came       int    // when its answer began to come
	version    string // that the answer names; empty: none that the sidecar could read
	uid        string // of the object that was there, or was deleted
	gone       bool   // a deletion of this uid
	missing    bool   // a 404
	exists     bool   // only that it is there: a 409
	whole      bool   // by a list of which the sidecar knows nothing but its version: a Table, or a shard
	changed    string // the object's own version in such a list
	unselected bool   // only that it has not the label of a list, or is absent
	lag        bool   // the answer was allowed to be older than the latest state
	event      bool   // of a watch, which is always behind by some time
	silent     bool   // it demands nothing: by a list of the sidecar's own, of which the principal was not told
	settled    bool   // the sidecar has had its chance to list again since then
	listed     bool   // and had a list of the object to repeat
	killed     bool   // but it was killed before that
}

// floor is the contract: the oldest revision whose state of an object may be answered to a
// principal that was told this. It is the newest revision that it was told about, except where
// nobody outside the server can know which of two answers is newer. Then either is right; one of
// them may be of a list of the sidecar's own. That an object exists contradicts only its absence.
//
// That an object is not selected by its label contradicts only that it has the label. A restored
// cluster may give an object the same version twice: nobody outside can tell the two apart, so that
// the answer is as new as what was told last of its version.
func floor(told []observation, answered object) int {
	lowest, same := -1, -1
	for _, o := range told {
		if o.uid == answered.uid && o.version != "" && o.version == answered.version {
			same = max(same, o.at)
		}
	}
	for _, newer := range told {
		counts := (answered == object{} || !newer.exists) && (answered.label == tiers[0] || !newer.unselected) && newer.at > same
		if newer.at > lowest && counts && !newer.silent && !disputed(newer, told) {
			lowest = newer.at
		}
	}
	return lowest
}

// beyond returns what a list at a version, of which only that is known, may be compared with: what
// was told at higher versions, or without one.
func beyond(told []observation, version string) (out []observation) {
	v, ok := number(version)
	for _, o := range told {
		if n, numeric := number(o.version); !ok || !numeric || n > v {
			out = append(out, o)
		}
	}
	return out
}

// labelled returns what was told, for a list with a label at a version. An object that is not newer,
// and was shown without its labels, may have been there without that one: it demands nothing.
func labelled(told []observation, version string) []observation {
	v, ok := number(version)
	out := slices.Clone(told)
	for i := range out {
		n, numeric := number(out[i].changed)
		out[i].silent = out[i].silent || out[i].whole && ok && numeric && n <= v
	}
	return out
}

// disputed reports whether an older observation may be taken for newer than this one.
func disputed(newer observation, told []observation) bool {
	for _, older := range told {
		if older.at < newer.at && !provable(newer, older, told) {
			return true
		}
	}
	return false
}

// provable reports whether the sidecar can know that an observation is newer than one that is
// older in truth.
func provable(newer, older observation, told []observation) bool {
	a, okA := number(newer.version)
	b, okB := number(older.version)
	latest := !newer.lag && newer.sent >= older.told // an answer of the latest state, asked for later
	switch {
	case older.deletes(newer.uid, told):
		return latest // a uid comes back only in a restored cluster
	case okA && okB && a >= b:
		return a > b || !newer.whole // with rows, one version in two states shows a restored cluster
	case okA && okB: // a restored cluster, too
		return latest || newer.settled && !newer.killed // the request for a list is in memory only
	case newer.gone && newer.uid == older.uid:
		return true // what was deleted is older
	case older.event && newer.came <= older.told:
		return false // the event came later; it may be about a new object
	case newer.lag && !newer.event:
		return newer.settled && newer.listed
	}
	return true
}

// deletes reports whether the object with a uid is gone by this observation. After a 404 for the
// latest state, that is every uid that was told before it was asked for.
func (o observation) deletes(uid string, told []observation) bool {
	return uid != "" && (o.gone && o.uid == uid || o.missing && !o.lag &&
		slices.ContainsFunc(told, func(before observation) bool { return before.uid == uid && before.told <= o.sent }))
}

// number reads a resourceVersion. Those of an aggregated API server may be no numbers.
func number(version string) (uint64, bool) {
	n, err := strconv.ParseUint(version, 10, 63)
	return n, err == nil
}
