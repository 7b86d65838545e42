package replay

import (
	"context"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/store"
)

// Overtaken reports whether there is no complete collection of a scope, or something newer is known
// about its objects.
func (r *Replayer) Overtaken(ctx context.Context, scope store.Scope) (bool, error) {
	all, err := r.db.Collections(ctx, scope.Principal, scope.Group, scope.Version, scope.Resource)
	if err != nil {
		return false, err
	}
	info := request.Info{Group: scope.Group, Version: scope.Version, Resource: scope.Resource, Namespace: scope.Namespace}
	info.LabelSelector, info.FieldSelector = scope.LabelSelector, scope.FieldSelector
	for _, c := range all {
		if c.Scope != scope || c.State != store.Complete {
			continue
		}
		s := selection{collection: c}
		by, err := r.db.Overtaken(ctx, c, s.whole(info, &r.selectors))
		return by != "", err
	}
	return true, nil
}
