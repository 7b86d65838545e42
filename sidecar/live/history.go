package live

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/replay"
	"rockpool.dev/store"
)

// recent is how old the last evidence of a collection's version may be for a watch to go on from
// there. A cluster is not restored from a backup in that time, and past the version. An older
// collection is followed from its newest object, and the watch must bring what is recorded.
const recent = 2 * time.Minute

var errHistory = errors.New("the API server's history is not the recorded one; perhaps the cluster was restored from a backup, or this API does not tell its history")

// history checks that the events of a watch are those that a collection was recorded from. Were the
// cluster restored to a state before the newest object, this object would not have changed at its
// version. Were it restored to a later state, the watch has all that has changed since. It begins
// just before the newest object for that, and brings again what came and went until the list. It
// does not show a deletion that the restore has taken back: only the number of objects does, see
// one.agrees. An object that was deleted after all contradicts the list, which record finds out.
type history struct {
	newest  store.Object           // comes first; without a name: it has come
	version string                 // of the collection; empty: all has been checked
	changed map[store.Key]struct{} // since newest; the list did not show them, so they must go
}

// isRecent reports whether a collection surely is of the present history.
func isRecent(r *replay.Recorded, now time.Time) bool { return now.Sub(r.SyncedAt).Abs() <= recent }

// follows gives the version from which a collection is followed, and what its watch must bring.
func follows(r *replay.Recorded, now time.Time) (from string, h history, err error) {
	if isRecent(r, now) {
		return r.ResourceVersion, history{}, nil
	}
	n, ok := store.ParseVersion(r.Newest.ResourceVersion)
	if !ok || n < 2 { // a watch from version 0 begins anywhere
		return "", history{}, fmt.Errorf("%w: the newest object is at version %q", errHistory, r.Newest.ResourceVersion)
	}
	return strconv.FormatUint(n-1, 10), history{newest: r.Newest, version: r.ResourceVersion, changed: map[store.Key]struct{}{}}, nil
}

// event checks the next event.
func (h *history) event(e wire.Event, m wire.Meta) error {
	if h.version == "" {
		return nil
	}
	if ours := h.newest; ours.Name != "" {
		same := ours.Namespace == m.Namespace && ours.Name == m.Name && ours.UID == m.UID && ours.ResourceVersion == m.ResourceVersion
		if !same || e.Type != wire.Added && e.Type != wire.Modified {
			return fmt.Errorf("%w: %s %s/%s at version %s does not show %s/%s at version %s", errHistory, e.Type, m.Namespace, m.Name, m.ResourceVersion, ours.Namespace, ours.Name, ours.ResourceVersion)
		}
		h.newest = store.Object{}
	} else if !store.NewerVersion(m.ResourceVersion, h.version) {
		key := store.Key{Namespace: m.Namespace, Name: m.Name}
		switch e.Type {
		case wire.Added, wire.Modified:
			h.changed[key] = struct{}{}
		case wire.Deleted:
			delete(h.changed, key)
		}
	}
	if store.NewerVersion(h.version, m.ResourceVersion) {
		return nil
	}
	if len(h.changed) > 0 {
		return fmt.Errorf("%w: %d objects have changed before version %s that are not recorded", errHistory, len(h.changed), h.version)
	}
	*h = history{}
	return nil
}
