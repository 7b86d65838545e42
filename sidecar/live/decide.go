package live

import (
	"time"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/store"
)

// Verdict says who answers a read while the link is up.
type Verdict string

// The verdicts.
const (
	Pass    Verdict = "pass"    // the API server
	Checked Verdict = "checked" // the cache, once the API server has accepted the caller
	Proven  Verdict = "proven"  // the cache, once it has reached the present revision, too
)

// Facts are what Decide goes by.
type Facts struct {
	Save bool // the setting online.reads
	Info *request.Info
	// Principal is the caller; empty: its reading is not recorded.
	Principal string
	// Recorded means that there is a complete collection of exactly what is asked for, in the form
	// that the client likes best.
	Recorded bool
	// Overtaken means that something newer is known of its objects. It only matters of a live one.
	Overtaken bool
	Version   string // of the collection
	Objects   int
	Slow      bool // the last answer broke off, because its client is too slow for a collection that changes
	Live      bool // a watch follows the collection, and has caught up
	// Unmeasured means that nothing is known of what the link carries.
	Unmeasured bool
	// List and Proof are how long the API server's list is expected to take, and a proof.
	List, Proof time.Duration
}

// Decide says who answers a read. It is the one place that does. If that is the API server, why is
// a word for metrics and logs.
func Decide(f Facts) (v Verdict, why string) {
	info := f.Info
	isList := info.Class == request.ClassList && !info.SendInitialEvents
	switch {
	case !f.Save:
		return Pass, "off"
	case !isList && !beginsWithState(info),
		f.Principal == "", info.Unrecorded, info.Narrowed, info.Unclean, info.Pretty, info.Continue != "":
		return Pass, "kind"
	case !f.Recorded:
		return Pass, "unrecorded"
	case f.Slow:
		return Pass, "slow"
	}
	if _, ok := store.ParseVersion(f.Version); !ok {
		return Pass, "version"
	}
	asks := askedVersion(info)
	switch {
	case asks == invalid:
		return Pass, "version"
	case isList && info.Limit > 0 && asks != anyVersion && asks != latest, isList && exceedsPage(info, f.Objects):
		return Pass, "pages" // also with a version, which is an exact one then
	case asks == latest:
	case f.Live && !f.Overtaken && !store.NewerVersion(info.ResourceVersion, f.Version):
		return Checked, ""
	}
	switch {
	case f.Unmeasured:
		return Pass, "unmeasured" // proofs alone would never measure it
	case f.Proof >= f.List:
		return Pass, "small"
	}
	return Proven, ""
}

// exceedsPage reports whether the API server would split a list of so many objects. It does not
// split one at any version.
func exceedsPage(info *request.Info, objects int) bool {
	return info.Limit > 0 && int64(objects) > info.Limit && askedVersion(info) != anyVersion
}

// beginsWithState reports whether a request is for a watch that sends its initial state and a
// bookmark behind that (KEP-3157). The API server refuses one without NotOlderThan.
func beginsWithState(info *request.Info) bool {
	return info.Class == request.ClassWatch && info.SendInitialEvents && info.AllowWatchBookmarks && info.ResourceVersionMatch == "NotOlderThan"
}

// versionAsked is which states a read may show
// (https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list).
type versionAsked int

const (
	latest     versionAsked = iota
	anyVersion              // resourceVersion=0
	notOlder
	invalid // an exact version, or what only the API server can judge
)

func askedVersion(info *request.Info) versionAsked {
	_, numeric := store.ParseVersion(info.ResourceVersion)
	match := info.ResourceVersionMatch
	switch {
	case info.ResourceVersion == "" && (match == "" || beginsWithState(info)):
		return latest
	case !numeric, match != "" && match != "NotOlderThan":
		return invalid
	case info.ResourceVersion == "0":
		return anyVersion
	}
	return notOlder
}

// AtLeast is the version that the answer to a read must have reached, when the present revision is
// known; empty: any.
func AtLeast(v Verdict, info *request.Info, present string) string {
	asks := askedVersion(info) == notOlder
	switch {
	case v == Proven && (!asks || !store.NewerVersion(info.ResourceVersion, present)):
		return present
	case asks:
		return info.ResourceVersion
	}
	return ""
}
