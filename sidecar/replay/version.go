package replay

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/store"
)

// Check returns the API server's error for parameters that it refuses: they contradict each other,
// or the resourceVersion is no number.
func (r *Replayer) Check(ctx context.Context, q Request) error {
	return r.check(ctx, &q)
}

func (r *Replayer) check(ctx context.Context, q *Request) error {
	if err := checkOptions(&q.Info); err != nil {
		return err
	}
	return r.checkVersion(ctx, q)
}

// checkVersion returns the API server's error for a resourceVersion that is no number, if the
// versions of the resource are numbers. Those of an aggregated API server may be something else.
func (r *Replayer) checkVersion(ctx context.Context, q *Request) error {
	version := q.Info.ResourceVersion
	_, err := strconv.ParseUint(version, 10, 64)
	if version == "" || err == nil || !q.Info.IsResource || !r.isNumbered(ctx, q) {
		return nil
	}
	message := fmt.Sprintf("resourceVersion: Invalid value: %q: %v", version, err)
	if q.Info.Class == request.ClassList {
		return apierrors.NewBadRequest("invalid resource version: " + message)
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: message}}
}

// isNumbered reports whether the versions of a resource are known to be numbers.
func (r *Replayer) isNumbered(ctx context.Context, q *Request) bool {
	if q.Info.IsBuiltin() {
		return true
	}
	all, err := r.db.Collections(ctx, q.Principal, q.Info.Group, q.Info.Version, q.Info.Resource)
	return err == nil && slices.ContainsFunc(all, func(c store.Collection) bool {
		_, ok := store.ParseVersion(c.ResourceVersion)
		return ok
	})
}
