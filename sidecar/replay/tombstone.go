package replay

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"rockpool.dev/store"
)

// tombstone finds out whether the server has said of the very object that it is not
// there; nil if it has not.
func (r *Replayer) tombstone(ctx context.Context, q Request) (*store.Tombstone, error) {
	t, err := r.db.Tombstone(ctx, q.Principal, q.Info.Group, q.Info.Resource, q.Info.Namespace, q.Info.Name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return &t, err
}

// supersedes tells that what a collection has of an object is older than the server's word
// that it is gone. An object that was made anew under the name has another uid, and a
// version behind all that were known; where versions cannot be compared, the time
// decides at which the collection was true.
func supersedes(t *store.Tombstone, s candidate) bool {
	if t == nil || s.absent {
		return false
	}
	if slices.Contains(t.UIDs, s.object.UID) {
		return true
	}
	version, err := strconv.ParseUint(s.object.ResourceVersion, 10, 64)
	deleted, errDeleted := strconv.ParseUint(t.ResourceVersion, 10, 64)
	if err == nil && errDeleted == nil {
		return version <= deleted
	}
	return !s.collection.SyncedAt.After(t.At)
}
