package relist

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/sidecar/replay"
	"rockpool.dev/store"
)

// When the API server has forgotten the resourceVersion of a watch, the sidecar lists again and
// sends the client the changes as ordinary events.
//
// Nobody has to remember what the client was sent: it is the API server's state at the watch's
// last version. A client that watches from a version says by that that it has this state,
// wherever it got it, and every event up to the last has brought it to the next state. A
// recorded collection that is complete at this very version, and has all that the watch
// selects, holds the same. It does not matter who has recorded it. A collection at another
// version is of no use, even a newer one: it cannot tell which objects were deleted. The
// exception is a collection that has not changed in between, as when another watch was sent a
// bookmark. Without such a collection the client gets 410 Gone, as from the API server, and
// lists itself.
//
// The order of the events matters to a client whose stream breaks among them. It goes on from
// the version of the last event, as client-go does, so that no change at or before that version
// may be left:
//
//  1. DELETED, as the objects were. The time of a deletion is not known, so deletions come
//     first, at the watch's last version: the client stays where it was. If it goes on from
//     there, it gets the rest, or 410.
//  2. ADDED and MODIFIED, in the order of their versions. An object that was deleted and
//     created again is in both.
//  3. A BOOKMARK at the version of the list, for a client that has asked for bookmarks. Another
//     client stays at the last event, which is older but not wrong: if it goes on from there,
//     it gets deletions twice, or 410 when that version is forgotten, too.

// maxDifference bounds the changed objects of a difference, in bytes: as much as may wait to be
// recorded.
const maxDifference = record.DefaultMaxPending

// ErrUnknown says that nobody can tell what a client was sent.
var ErrUnknown = errors.New("the state that the client was sent is not known")

var (
	errContradiction = errors.New("the state that the client was sent contradicts the API server's list")
	errTooDifferent  = errors.New("too much has changed")
)

// Difference is what lies between the state that clients have been sent and a list.
type Difference struct {
	Changes          []record.Change
	Version          string // of the list
	Kind, APIVersion string // of the objects
}

// Client is a watch's client that may have missed changes.
type Client struct {
	Upstream http.RoundTripper
	Cache    *cache.Cache
	// Info is the watch's request.
	Info request.Info
	// At is where the client is.
	At Position
	// List makes a request that lists what the watch selects, as its principal, in its form.
	List func(context.Context) *http.Request
}

// Difference finds the changes that the client has missed. An error that is neither the link's,
// nor the context's, nor origin.ErrForeign says that they cannot be known.
func (c *Client) Difference(ctx context.Context) (*Difference, error) {
	sent, err := c.sent(ctx)
	if err != nil {
		return nil, err
	}
	x := &comparison{at: c.At, was: map[store.Key]identity{}}
	err = sent.Each(func(o store.Object) error {
		x.was[store.Key{Namespace: o.Namespace, Name: o.Name}] = identity{o.UID, o.ResourceVersion}
		return nil
	})
	if err != nil {
		return nil, err
	}
	list := pages{request: c.List, send: c.Upstream.RoundTrip, item: x.item, ended: x.page}
	if err := list.read(ctx); err != nil {
		return nil, err
	}
	if before, ok := older(x.version, c.At.Version); !ok || before {
		return nil, errContradiction
	}
	err = sent.Each(func(o store.Object) error { return x.left(o, sent.Typed) })
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(x.made, func(a, b record.Change) int {
		m, _ := number(a.ResourceVersion) // that they are numbers was seen before
		n, _ := number(b.ResourceVersion)
		return cmp.Compare(m, n)
	})
	kind, apiVersion := sent.Kind()
	return &Difference{append(x.gone, x.made...), x.version, kind, apiVersion}, nil
}

// sent finds the state that the client has been sent.
func (c *Client) sent(ctx context.Context) (*replay.StateAt, error) {
	flushing, cancel := context.WithTimeout(ctx, cache.FlushTimeout)
	defer cancel()
	if err := c.Cache.Flush(flushing); err != nil {
		return nil, fmt.Errorf("%w yet: %w", ErrUnknown, err)
	}
	state, err := c.Cache.StateAt(ctx, replay.Request{Principal: c.At.Principal, Info: c.Info}, c.At.Form, c.At.Version)
	if errors.Is(err, replay.ErrNotRecorded) || errors.Is(err, cache.ErrClosed) {
		err = fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return state, err
}

// comparison goes through a list and through the state before it. It holds the identity of each
// object, and only the changed ones in full.
type comparison struct {
	at         Position
	version    string                 // of the list
	was        map[store.Key]identity // after the list: the objects that it lacks, or that were created again
	gone, made []record.Change
	size       int // of gone and made, in bytes
}

// identity tells whether an object is the same as before.
type identity struct{ uid, version string }

// page checks that all pages of the list are at one version.
func (c *comparison) page(_ context.Context, list wire.ListMeta) error {
	if list.ResourceVersion == "" || (c.version != "" && c.version != list.ResourceVersion) {
		return fmt.Errorf("%w: a page at version %q after a page at %q", errContradiction, list.ResourceVersion, c.version)
	}
	c.version = list.ResourceVersion
	return nil
}

// item compares an item of the list. It refuses a list whose objects are in another form than
// asked for.
func (c *comparison) item(list wire.ListMeta, raw []byte) error {
	if (list.Kind == wire.PartialKind+"List") != (c.at.Form.Representation == request.Metadata) || list.Kind == "" {
		return fmt.Errorf("%w: a list of kind %q", errContradiction, list.Kind)
	}
	format := c.at.Form.Format
	m, err := format.ParseItem(raw)
	if err != nil {
		return err
	}
	key := store.Key{Namespace: m.Namespace, Name: m.Name}
	was, had := c.was[key]
	kind := wire.Added
	if had && was.uid == m.UID {
		delete(c.was, key)
		kind = wire.Modified
	}
	if kind == wire.Modified && was.version == m.ResourceVersion {
		return nil
	}
	if newer, ok := older(c.at.Version, m.ResourceVersion); !ok || !newer {
		return errContradiction
	}
	object, err := typed(format, list, m, raw)
	if err != nil {
		return err
	}
	return c.add(&c.made, kind, object)
}

// left compares an object of the state before, when the list is through.
func (c *comparison) left(o store.Object, typed func(store.Object) []byte) error {
	if _, ok := c.was[store.Key{Namespace: o.Namespace, Name: o.Name}]; !ok {
		return nil
	}
	object, err := c.at.Form.Format.AtVersion(typed(o), c.at.Version)
	if err != nil {
		return err
	}
	return c.add(&c.gone, wire.Deleted, object)
}

func (c *comparison) add(to *[]record.Change, kind string, object []byte) error {
	if c.size += len(object); c.size > maxDifference {
		return errTooDifferent
	}
	m, err := c.at.Form.Format.ParseMeta(object)
	*to = append(*to, record.Change{Event: wire.Event{Type: kind, Object: object}, Meta: m})
	return err
}

// typed gives an item of a list as it is in an event.
func typed(format wire.Format, list wire.ListMeta, m wire.Meta, item []byte) ([]byte, error) {
	if m.Kind != "" {
		return slices.Clone(item), nil
	}
	kind, ok := strings.CutSuffix(list.Kind, "List")
	if !ok {
		return nil, fmt.Errorf("%w: a list of kind %q", errContradiction, list.Kind)
	}
	return format.AppendTyped(nil, kind, list.APIVersion, item), nil
}

// older compares resourceVersions; ok tells whether they can be compared.
func older(a, b string) (is, ok bool) {
	x, okX := number(a)
	y, okY := number(b)
	return x < y, okX && okY
}

// number reads a resourceVersion. Since KEP-5504 they are numbers that grow.
func number(version string) (uint64, bool) {
	n, err := strconv.ParseUint(version, 10, 64)
	return n, err == nil
}
