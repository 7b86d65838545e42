package live

import (
	"errors"
	"testing"
	"time"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/replay"
	"rockpool.dev/store"
)

// told is an event of a watch of ConfigMaps of one namespace.
type told struct{ kind, name, uid, version string }

func TestWhichHistoryIsTheRecordedOne(t *testing.T) {
	witness := told{wire.Modified, "c", "c", "7"}
	for name, c := range map[string]struct {
		events []told
		done   bool
		err    error
	}{
		"nothing has come":                                   {nil, false, nil},
		"the newest object comes first":                      {[]told{witness}, false, nil},
		"and a bookmark shows that nothing else has changed": {[]told{witness, {wire.Bookmark, "", "", "10"}}, true, nil},
		"or a later change":                                  {[]told{witness, {wire.Modified, "a", "a", "11"}}, true, nil},
		"it may have been added then":                        {[]told{{wire.Added, "c", "c", "7"}, {wire.Bookmark, "", "", "12"}}, true, nil},
		"what was deleted since is not in the list":          {[]told{witness, {wire.Deleted, "d", "d", "10"}}, true, nil},
		"nor what came and went":                             {[]told{witness, {wire.Added, "d", "d", "8"}, {wire.Modified, "d", "d", "9"}, {wire.Deleted, "d", "d", "10"}}, true, nil},
		"a bookmark before the newest object":                {[]told{{wire.Bookmark, "", "", "10"}}, false, errHistory},
		"another object at its version":                      {[]told{{wire.Modified, "a", "a", "7"}}, false, errHistory},
		"another object of its name":                         {[]told{{wire.Modified, "c", "z", "7"}}, false, errHistory},
		"the newest object at a later version":               {[]told{{wire.Modified, "c", "c", "8"}}, false, errHistory},
		"its deletion at its version":                        {[]told{{wire.Deleted, "c", "c", "7"}}, false, errHistory},
		"a change before the list that it did not show":      {[]told{witness, {wire.Modified, "a", "a", "8"}, {wire.Bookmark, "", "", "12"}}, false, errHistory},
		"one at the version of the list":                     {[]told{witness, {wire.Added, "d", "d", "10"}}, false, errHistory},
	} {
		t.Run(name, func(t *testing.T) {
			r := &replay.Recorded{Newest: store.Object{Namespace: "shop", Name: "c", UID: "c", ResourceVersion: "7"}}
			r.ResourceVersion, r.SyncedAt = "10", time.Now()
			from, h, err := follows(r, r.SyncedAt.Add(2*recent))
			if from != "6" || err != nil {
				t.Fatalf("it begins at %q: %v", from, err)
			}
			for _, e := range c.events {
				m := wire.Meta{Name: e.name, UID: e.uid, ResourceVersion: e.version}
				if e.name != "" {
					m.Namespace = "shop"
				}
				if err == nil {
					err = h.event(wire.Event{Type: e.kind}, m)
				}
			}
			if !errors.Is(err, c.err) || (h.version == "") != c.done {
				t.Errorf("%v, %+v", err, h)
			}
		})
	}
}

func TestWhereACollectionIsFollowedFrom(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		age    time.Duration
		newest string
		from   string
		ok     bool
	}{
		"from its version as long as that is recent":             {recent, "7", "10", true},
		"also if the clock was set back a little":                {-time.Second, "7", "10", true},
		"from just before its newest object later":               {recent + time.Second, "7", "6", true},
		"also if the clock was set back":                         {-2 * recent, "7", "6", true},
		"nowhere if it has none":                                 {time.Hour, "", "", false},
		"nor from version 0, where a watch begins with anything": {time.Hour, "1", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := &replay.Recorded{Newest: store.Object{Name: "c", ResourceVersion: c.newest}}
			r.ResourceVersion, r.SyncedAt = "10", now.Add(-c.age)
			from, _, err := follows(r, now)
			if from != c.from || (err == nil) != c.ok {
				t.Errorf("%q %v", from, err)
			}
		})
	}
}

// A collection of yesterday is followed from its newest object.
func TestACollectionOfYesterdayIsAnsweredOnceItsHistoryIsProven(t *testing.T) {
	for name, c := range map[string]struct {
		witness string // the version at which the watch brings the newest object
		saved   bool
	}{
		"the history is the recorded one": {"7", true},
		"it is another one":               {"8", false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			h.clock.Step(24 * time.Hour)
			h.server.mu.Lock()
			h.server.revision = 20
			h.server.mu.Unlock()
			list := h.list("")
			w := h.server.watch(1)
			h.server.asked(1)
			if from := h.server.opened[0]; from != "6" {
				t.Errorf("the watch begins at %s", from)
			}
			h.server.event(w, c.witness)
			h.server.bookmark(w)
			if !c.saved {
				list.passed()
				return
			}
			list.saved(20, "a@5", "b@6", "c@7")
			// It is live now, and surely of this history.
			again := h.list("?resourceVersion=0")
			again.saved(20, "a@5", "b@6", "c@7")
		})
	}
}

// Only a proof reads all rows to find the object that has changed last. Something newer may have been
// recorded since it was decided.
func TestTheNewestObjectIsOfWhatIsRecordedNow(t *testing.T) {
	h := newHarness(t)
	read := h.get("")
	var err error
	if read.Recorded, err = h.recorded(t.Context(), &read); err != nil || read.Recorded.Newest.Name != "" {
		t.Fatalf("%v, and the newest object is %q", err, read.Recorded.Newest.Name)
	}
	h.server.set("a", nil)
	h.record()
	if err := h.findNewest(t.Context(), &read); err != nil {
		t.Fatal(err)
	}
	if r := read.Recorded; r.ResourceVersion != "11" || r.Newest.Name != "a" || r.Newest.ResourceVersion != "11" {
		t.Errorf("%s at %s, of a list at %s", r.Newest.Name, r.Newest.ResourceVersion, r.ResourceVersion)
	}
}
