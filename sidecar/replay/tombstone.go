package replay

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"rockpool.dev/store"
)

// tombstone returns the tombstone of the object of a request, nil if there is none.
func (r *Replayer) tombstone(ctx context.Context, q Request) (*store.Tombstone, error) {
	t, err := r.db.Tombstone(ctx, q.Principal, q.Info.Group, q.Info.Resource, q.Info.Namespace, q.Info.Name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return &t, err
}

// supersedes reports whether a tombstone is newer than a collection's state of the object. An
// object that was created again under the name has another uid, and a version higher than all
// before it. If versions cannot be compared, the time decides at which the collection was current.
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
