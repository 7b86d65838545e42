package replay

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/store"
)

// Recorded is a complete collection that is exactly what a list or watch asks for: of the same
// scope, and in the form that its client likes best. It is valid until something newer is recorded.
type Recorded struct {
	store.Collection
	Form    request.Form
	Objects int
	Bytes   int64 // of the payloads
	// Newest is the object that has changed last, without its payload. Zero: there are none, or see
	// FindNewest.
	Newest store.Object
	// BrokenOff, if not nil, is called when an answer breaks off because something newer was
	// recorded while its client read it: see pinned.
	BrokenOff func()

	replayer *Replayer
	asked    Request
	selected selection
}

// Recorded finds the collection that a list or watch asks for, whatever resourceVersion it names.
// It returns ErrNotRecorded if there is none.
func (r *Replayer) Recorded(ctx context.Context, q Request) (Recorded, error) {
	return unchanged(func() (Recorded, error) { return r.recorded(ctx, q) })
}

func (r *Replayer) recorded(ctx context.Context, q Request) (found Recorded, err error) {
	forms := q.Info.Forms()
	if len(forms) == 0 || !q.Info.Splits() {
		return found, fmt.Errorf("%w: the form that the client likes best cannot be split", ErrNotRecorded)
	}
	all, err := r.db.Collections(ctx, q.Principal, q.Info.Group, q.Info.Version, q.Info.Resource)
	if err != nil {
		return found, err
	}
	i := slices.IndexFunc(all, func(c store.Collection) bool {
		return c.State == store.Complete && exact(c, q.Info) && formOf(c) == forms[0]
	})
	if i < 0 {
		return found, fmt.Errorf("%w: no complete list of %s is the one that is asked for", ErrNotRecorded, q.Info.Resource)
	}
	found = Recorded{Collection: all[i], Form: forms[0], replayer: r, asked: q, selected: selection{collection: all[i]}}
	found.selected.conversion, _ = findConversion(all[i], forms[:1], false)
	if err = r.certain(q); err == nil {
		found.Objects, found.Bytes, err = r.db.Size(ctx, found.ID, found.Revision)
	}
	return found, err
}

// Overtaken says what is known that is newer. Then the collection is not to be answered before it
// has caught up with that. Empty: nothing. It may read all rows of other collections. It returns
// store.ErrChanged if something newer was recorded.
func (r *Recorded) Overtaken(ctx context.Context) (by string, err error) {
	return r.replayer.overtaken(ctx, r.asked, &r.selected)
}

// FindNewest sets Newest, which Recorded leaves out: it reads all rows, and most reads pass. It
// returns store.ErrChanged if something newer was recorded.
func (r *Recorded) FindNewest(ctx context.Context) (err error) {
	r.Newest, err = r.replayer.db.Newest(ctx, r.ID, r.Revision, func(store.Object) bool { return true })
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// Unchanged returns the object that has changed last of those that have not changed since a
// version, apart from some. It is zero if there is none. It returns store.ErrChanged if something
// newer was recorded.
func (r *Recorded) Unchanged(ctx context.Context, since string, apart func(store.Key) bool) (store.Key, error) {
	o, err := r.replayer.db.Newest(ctx, r.ID, r.Revision, func(o store.Object) bool { return !store.NewerVersion(o.ResourceVersion, since) && !apart(o.Key()) })
	if errors.Is(err, store.ErrNotFound) {
		return store.Key{}, nil
	}
	return o.Key(), err
}

// Object returns the uid and the resourceVersion of one of the objects, empty if there is no such
// object, or store.ErrChanged if something newer was recorded.
func (r *Recorded) Object(ctx context.Context, key store.Key) (uid, version string, err error) {
	within := store.Range{Namespace: key.Namespace, Name: key.Name}
	_, err = r.replayer.db.List(ctx, r.ID, r.Revision, within, func(o store.Object) error {
		uid, version = o.UID, o.ResourceVersion
		return nil
	})
	return uid, version, r.replayer.damaged(r.ID, err)
}

// List is the collection as the answer to a LIST, or store.ErrChanged if something newer was
// recorded. A slow client may find store.ErrChanged in the body: see pinned.
func (r *Recorded) List(ctx context.Context) (*http.Response, error) {
	pages, err := r.pinned(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := r.replayer.listOf(r.selected, pages)
	if err != nil {
		pages.close()
		return nil, err
	}
	// A small list needs no pin while its client reads.
	if err := resp.Body.(*listBody).begin(); err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	return resp, nil
}

// State is the collection as the initial state of a watch, with the bookmark that marks its end, or
// store.ErrChanged if something newer was recorded. The caller closes it. A slow client may find
// store.ErrChanged: see pinned.
func (r *Recorded) State(ctx context.Context) (*State, error) {
	pages, err := r.pinned(ctx)
	if err != nil {
		return nil, err
	}
	return r.replayer.stateOf(r.selected, pages, true), nil
}

// pinWait bounds how long a list waits for a pin that slow clients hold.
const pinWait = time.Second

// pinned returns the pages of the collection. They do not change while they are read, unless that
// takes longer than store.PinTime, or other lists have all pins for pinWait.
func (r *Recorded) pinned(ctx context.Context) (pages, error) {
	waiting, cancel := context.WithTimeout(ctx, pinWait)
	defer cancel()
	pin, err := r.replayer.db.Pin(waiting, ctx)
	pages := r.replayer.pages(ctx, r.selected)
	pages.brokenOff = r.BrokenOff
	switch {
	case err == nil:
		pages.from = pin
	case ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded):
		return pages, err
	}
	if err := pages.from.Holds(ctx, r.ID, r.Revision); err != nil {
		pages.close()
		return pages, err
	}
	r.replayer.rec.Used(r.ID)
	return pages, nil
}
