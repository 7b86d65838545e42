package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/sidecar/replay"
	"rockpool.dev/store"
)

// When the server has forgotten the version behind which a watch wants to go on, it is
// listed again, and its client is sent what has changed, as ordinary events.
//
// What the client has been sent, nobody has to remember: it is the state of the server
// at the watch's last version. A client that watches behind a version says by that
// that it has this state, wherever it has got it from, and every event up to the last
// one has brought it to the next. A recorded collection that is complete at this very
// version, and has all that the watch selects, holds the same. It does not matter who
// has recorded it. One at another version is of no use, be it newer, unless nothing
// has changed in between, as when another watch was sent a bookmark: what was deleted it
// cannot tell. Then the client hears 410 Gone, as from the server, and lists itself.
//
// In which order the events come matters to a client whose stream breaks among
// them. It goes on behind the version of the last one, as client-go does with
// every event, so that nothing at or before that version may be left to be told:
//
//  1. DELETED, as they were. When that happened is not known, so they come first, at
//     the watch's last version: the client stays where it was. If it goes on from there,
//     it hears the rest, or 410.
//  2. ADDED and MODIFIED, as they are, in the order of their versions. What was deleted
//     and made anew is in both.
//  3. A BOOKMARK at the version of the list, for a client that has asked for bookmarks.
//     Another one stays at the last event, which is older but not wrong: if it goes on
//     from there it hears deletions twice, or 410 when that is forgotten, too.

// maxDifference bounds what the changed objects of a difference take, in bytes: as much
// as waits at most to be recorded.
const maxDifference = record.DefaultMaxPending

// relistPage is how many objects are asked for at once.
const relistPage = 500

var (
	errUnknown       = errors.New("it is not known what the client was sent")
	errContradiction = errors.New("what the client was sent and the API server's list contradict each other")
	errTooDifferent  = errors.New("too much has changed")
)

// difference is what lies between the state that clients have been sent and a list.
type difference struct {
	changes          []record.Change
	version          string // of the list
	kind, apiVersion string // of the objects
}

// difference finds out what the client has missed. An error that is not the link's, or the
// context's, says that this cannot be known.
func (w *watch) difference(ctx context.Context) (*difference, error) {
	if !w.comparable() {
		return nil, errUnknown
	}
	return w.company.difference(ctx, func(ctx context.Context) (*difference, error) { return w.compare(ctx, w.company.place) })
}

// compare lists what the watches at a place read, and compares.
func (w *watch) compare(ctx context.Context, at place) (*difference, error) {
	past, err := w.sent(ctx, at)
	if err != nil {
		return nil, err
	}
	c := &comparison{at: at, was: map[store.Key]identity{}}
	err = past.Each(func(o store.Object) error {
		c.was[store.Key{Namespace: o.Namespace, Name: o.Name}] = identity{o.UID, o.ResourceVersion}
		return nil
	})
	if err != nil {
		return nil, err
	}
	version, err := w.relist(ctx, at, c.item)
	if err != nil {
		return nil, err
	}
	if before, ok := older(version, at.version); !ok || before {
		return nil, errContradiction
	}
	err = past.Each(func(o store.Object) error { return c.past(o, past.Typed) })
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(c.made, func(a, b record.Change) int {
		x, _ := number(a.ResourceVersion) // that they are numbers was seen before
		y, _ := number(b.ResourceVersion)
		return cmp.Compare(x, y)
	})
	kind, apiVersion := past.Kind()
	return &difference{append(c.gone, c.made...), version, kind, apiVersion}, nil
}

// comparison goes through a list and through what was before it. It holds what
// identifies each object, and whole only those that have changed.
type comparison struct {
	at         place
	was        map[store.Key]identity // behind the list: what it does not have, or made anew
	gone, made []record.Change
	size       int // of these, in bytes
}

// identity tells whether an object is the same as before.
type identity struct{ uid, version string }

// item takes an item of the list.
func (c *comparison) item(list wire.ListMeta, raw []byte) error {
	format := c.at.form.Format
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
	if behind, ok := older(c.at.version, m.ResourceVersion); !ok || !behind {
		return errContradiction
	}
	object, err := typed(format, list, m, raw)
	if err != nil {
		return err
	}
	return c.add(&c.made, kind, object)
}

// past takes an object as it was before, when the list is through.
func (c *comparison) past(o store.Object, typed func(store.Object) []byte) error {
	if _, ok := c.was[store.Key{Namespace: o.Namespace, Name: o.Name}]; !ok {
		return nil
	}
	object, err := c.at.form.Format.AtVersion(typed(o), c.at.version)
	if err != nil {
		return err
	}
	return c.add(&c.gone, wire.Deleted, object)
}

func (c *comparison) add(to *[]record.Change, kind string, object []byte) error {
	if c.size += len(object); c.size > maxDifference {
		return errTooDifferent
	}
	m, err := c.at.form.Format.ParseMeta(object)
	*to = append(*to, record.Change{Event: wire.Event{Type: kind, Object: object}, Meta: m})
	return err
}

// comparable tells that what the watch reads can be recorded, so that it can be known what
// its client has been sent, and that this is in the form that its place says. Of a client
// that acts as somebody else, or takes a Table, its place says too little.
func (w *watch) comparable() bool {
	cache := w.flow.cache(&w.info)
	if cache.Recorder == nil || cache.Replayer == nil || w.whose == "" || w.info.Unrecorded {
		return false
	}
	return w.accept != "" || !slices.ContainsFunc(w.info.Accept, func(m request.MediaType) bool {
		_, cut := m.Representation()
		return !cut
	})
}

// sent finds the state that the client has been sent.
func (w *watch) sent(ctx context.Context, at place) (*replay.StateAt, error) {
	cache := w.flow.cache(&w.info)
	flushing, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if err := cache.Recorder.Flush(flushing); err != nil {
		return nil, fmt.Errorf("%w yet: %w", errUnknown, err)
	}
	was := func(c store.Collection) bool { return cache.Recorder.EqualsStateAt(c, at.version) }
	past, err := cache.Replayer.StateAt(ctx, replay.Request{Principal: at.principal, Info: w.info}, at.form, was)
	if errors.Is(err, replay.ErrNotRecorded) {
		err = fmt.Errorf("%w: %w", errUnknown, err)
	}
	return past, err
}

// relist reads the list of what the watch selects, in pages and in the watch's form, and
// gives its version. raw is only valid during the call of item.
func (w *watch) relist(ctx context.Context, at place, item func(list wire.ListMeta, raw []byte) error) (version string, err error) {
	selectors := url.Values{"limit": {strconv.Itoa(relistPage)}}
	for _, name := range []string{"labelSelector", "fieldSelector"} {
		if value := w.request.URL.Query().Get(name); value != "" {
			selectors.Set(name, value)
		}
	}
	item = ofForm(at.form, item)
	for {
		r := w.follower(ctx)
		r.URL.RawQuery = selectors.Encode()
		r.Header.Set("Accept", at.form.AcceptList())
		resp, err := w.flow.Upstream.RoundTrip(r)
		if err != nil {
			return "", err
		}
		head, err := readList(resp, item)
		switch {
		case err != nil:
			return "", err
		case head.ResourceVersion == "" || (version != "" && version != head.ResourceVersion):
			return "", fmt.Errorf("%w: a page at version %q behind one at %q", errContradiction, head.ResourceVersion, version)
		case head.Continue == "":
			return head.ResourceVersion, nil
		}
		version = head.ResourceVersion
		selectors.Set("continue", head.Continue)
	}
}

// ofForm refuses lists whose objects are in another form than asked for.
func ofForm(form request.Form, item func(wire.ListMeta, []byte) error) func(wire.ListMeta, []byte) error {
	return func(list wire.ListMeta, raw []byte) error {
		if (list.Kind == wire.PartialKind+"List") != (form.Representation == request.Metadata) || list.Kind == "" {
			return fmt.Errorf("%w: a list of kind %q", errContradiction, list.Kind)
		}
		return item(list, raw)
	}
}

// typed is an item of a list as it is in an event.
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

// readList reads a page of a list to its end.
func readList(resp *http.Response, item func(list wire.ListMeta, raw []byte) error) (wire.ListMeta, error) {
	defer resp.Body.Close()
	format := formatOf(resp)
	if resp.StatusCode != http.StatusOK || format == nil || resp.Header.Get("Content-Encoding") != "" {
		return wire.ListMeta{}, fmt.Errorf("the API server answers %s", resp.Status)
	}
	var split wire.ListSplitter
	split = format.NewList(func(raw []byte) error { return item(split.Peek(), raw) })
	if _, err := io.Copy(split, resp.Body); err != nil {
		return wire.ListMeta{}, err
	}
	return split.ListMeta()
}

// older compares resourceVersions; ok tells whether they can be compared.
func older(a, b string) (is, ok bool) {
	x, okX := number(a)
	y, okY := number(b)
	return x < y, okX && okY
}

// number reads a resourceVersion: since KEP-5504 they are numbers that grow.
func number(version string) (uint64, bool) {
	n, err := strconv.ParseUint(version, 10, 64)
	return n, err == nil
}
