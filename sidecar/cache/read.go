package cache

import (
	"context"
	"net/http"
	"time"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/replay"
	"rockpool.dev/store"
)

// Answer answers a GET or LIST; see replay.Replayer.
func (c *Cache) Answer(ctx context.Context, q replay.Request) (*http.Response, error) {
	if c.excluded(&q.Info) {
		return nil, ErrExcluded
	}
	o := c.open.Load()
	if o == nil {
		return nil, ErrClosed
	}
	if err := o.settle(ctx, q); err != nil {
		return nil, err
	}
	return o.replayer.Answer(ctx, q)
}

// settle records what a client was told by lists that the API server will not continue.
func (o *parts) settle(ctx context.Context, q replay.Request) error {
	if o.recorder.GiveUp(store.Resource{Principal: q.Principal, Group: q.Info.Group, Resource: q.Info.Resource}) {
		return o.recorder.Flush(ctx)
	}
	return nil
}

// Review gives the recorded answer to a review that is named by its sealed key.
func (c *Cache) Review(ctx context.Context, q replay.Request, name string, lifetime time.Duration, unseal func([]byte) ([]byte, error)) (*http.Response, error) {
	o := c.open.Load()
	if o == nil {
		return nil, ErrClosed
	}
	return o.replayer.Review(ctx, q, name, lifetime, unseal)
}

// ETag gives the ETag of the recorded answer to a request, empty if it has none.
func (c *Cache) ETag(ctx context.Context, q replay.Request) (string, error) {
	if c.excluded(&q.Info) {
		return "", ErrExcluded
	}
	o := c.open.Load()
	if o == nil {
		return "", ErrClosed
	}
	return o.replayer.ETag(ctx, q)
}

// Unchanged puts the recorded body in place of a 304; see replay.Replayer.
func (c *Cache) Unchanged(ctx context.Context, q replay.Request, etag string, notModified *http.Response) (*http.Response, error) {
	if c.excluded(&q.Info) {
		return nil, ErrExcluded
	}
	o := c.open.Load()
	if o == nil {
		return nil, ErrClosed
	}
	return o.replayer.Unchanged(ctx, q, etag, notModified)
}

// State gives the state that a watch begins with.
func (c *Cache) State(ctx context.Context, q replay.Request) (*replay.State, error) {
	if c.excluded(&q.Info) {
		return nil, ErrExcluded
	}
	o := c.open.Load()
	if o == nil {
		return nil, ErrClosed
	}
	if err := o.settle(ctx, q); err != nil {
		return nil, err
	}
	return o.replayer.State(ctx, q)
}

// Check returns the API server's error for parameters that it refuses.
func (c *Cache) Check(ctx context.Context, q replay.Request) error {
	o := c.open.Load()
	if o == nil {
		return nil
	}
	return o.replayer.Check(ctx, q)
}

// Form gives the form in which a client watches that has the recorded list.
func (c *Cache) Form(ctx context.Context, q replay.Request) (request.Form, bool) {
	o := c.open.Load()
	if o == nil || c.excluded(&q.Info) {
		return request.Form{}, false
	}
	return o.replayer.Form(ctx, q)
}

// StateAt gives the recorded state of what a watch reads at a resourceVersion. The objects are
// in the form of the watch.
func (c *Cache) StateAt(ctx context.Context, q replay.Request, form request.Form, resourceVersion string) (*replay.StateAt, error) {
	if c.excluded(&q.Info) {
		return nil, ErrExcluded
	}
	o := c.open.Load()
	if o == nil {
		return nil, ErrClosed
	}
	return o.replayer.StateAt(ctx, q, form, func(known store.Collection) bool { return o.recorder.EqualsStateAt(known, resourceVersion) })
}

// Recorded gives the collection that is exactly what a list or watch asks for; see
// replay.Replayer.
func (c *Cache) Recorded(ctx context.Context, q replay.Request) (replay.Recorded, error) {
	if c.excluded(&q.Info) {
		return replay.Recorded{}, ErrExcluded
	}
	o := c.open.Load()
	if o == nil {
		return replay.Recorded{}, ErrClosed
	}
	if err := o.settle(ctx, q); err != nil {
		return replay.Recorded{}, err
	}
	return o.replayer.Recorded(ctx, q)
}

// Contradicted notes that the API server contradicts a collection; see record.Recorder.
func (c *Cache) Contradicted(s store.Scope) {
	if o := c.open.Load(); o != nil {
		o.recorder.Contradicted(s)
	}
}

// Watches is how many recorded watches of a scope are open.
func (c *Cache) Watches(s store.Scope) int {
	if o := c.open.Load(); o != nil {
		return o.recorder.Watches(s)
	}
	return 0
}

// List is a recorded list, and whether a watch that moves it on is open.
type List struct {
	store.Collection
	Watched bool
}

// Lists returns the lists that are recorded whole; none if the cache is closed.
func (c *Cache) Lists(ctx context.Context) (all []List, err error) {
	o := c.open.Load()
	if o == nil {
		return nil, nil
	}
	collections, err := o.db.Lists(ctx)
	for _, x := range collections {
		all = append(all, List{x, o.recorder.Watched(x.Scope)})
	}
	return all, err
}
