package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/store"
)

// ErrNotRecorded means that the store has no answer. The wrapping error says why.
var ErrNotRecorded = errors.New("not recorded")

// Replayer answers requests from a store.
type Replayer struct {
	db   *store.DB
	now  func() time.Time
	used func(collection int64)
}

// New makes a Replayer. now is for the age of responses; nil means time.Now. used is called with
// the collections that have answered; nil means that nobody is told.
func New(db *store.DB, now func() time.Time, used func(collection int64)) *Replayer {
	if now == nil {
		now = time.Now
	}
	if used == nil {
		used = func(int64) {}
	}
	return &Replayer{db: db, now: now, used: used}
}

// Request is the request to answer.
type Request struct {
	Principal string // proven by the caller
	Info      request.Info
	Path      string // the URL's path and query
	// IfNoneMatch is the header of that name.
	IfNoneMatch string

	tombstone *store.Tombstone // of the object of the request; nil: none
}

// Answer returns the response to a GET or LIST. An error is ErrNotRecorded, an apierrors.APIStatus
// for the client, or the store's. Reading the body may fail with store.ErrChanged.
func (r *Replayer) Answer(ctx context.Context, q Request) (*http.Response, error) {
	// The rows may be replaced between two reads.
	for range 3 {
		resp, err := r.answer(ctx, q)
		if !errors.Is(err, store.ErrChanged) {
			return resp, err
		}
	}
	return nil, fmt.Errorf("%w: the cache keeps changing", ErrNotRecorded)
}

func (r *Replayer) answer(ctx context.Context, q Request) (*http.Response, error) {
	doc, err := r.document(ctx, q)
	if err != nil && !errors.Is(err, ErrNotRecorded) {
		return nil, err
	}
	rows, errRows := answer{}, fmt.Errorf("%w: no response to this request", ErrNotRecorded)
	switch q.Info.Class {
	case request.ClassGet:
		// A cancelable context costs a goroutine for each query, and these are short.
		rows, errRows = r.get(context.WithoutCancel(ctx), q)
	case request.ClassList:
		rows, errRows = r.list(ctx, q)
	}
	var refusal apierrors.APIStatus
	if errRows != nil && !errors.Is(errRows, ErrNotRecorded) && !errors.As(errRows, &refusal) {
		return nil, errRows // it is unknown which is newer
	}
	// The client prefers a verbatim response, for example a Table, unless the rows are newer.
	if err == nil && (errors.Is(errRows, ErrNotRecorded) || !rows.at.After(doc.at)) {
		return doc.Response, nil
	}
	return rows.Response, errRows
}

// answer is a response, or the time for which the object is proven absent.
type answer struct {
	*http.Response
	at time.Time
}

// get returns the newest recorded state of an object, in a form that the client accepts or that can
// be converted to one. The object is absent if its newest state in any form is absence, proven by a
// complete list without it or by the API server's 404 or DELETE for this very object.
func (r *Replayer) get(ctx context.Context, q Request) (answer, error) {
	all, err := r.db.Collections(ctx, q.Principal, q.Info.Group, q.Info.Version, q.Info.Resource)
	if err != nil {
		return answer{}, err
	}
	if q.tombstone, err = r.tombstone(ctx, q); err != nil {
		return answer{}, err
	}
	found, err := r.candidates(ctx, q, all)
	if err != nil {
		return answer{}, err
	}
	latest := newest(found, nil, func(store.Collection) (conversion, bool) { return conversion{}, true })
	notFound := apierrors.NewNotFound(schema.GroupResource{Group: q.Info.Group, Resource: q.Info.Resource}, q.Info.Name)
	switch {
	case latest == nil && q.tombstone != nil:
		return answer{at: q.tombstone.At}, notFound
	case latest != nil && latest.absent:
		r.used(latest.collection.ID)
		return answer{at: latest.collection.SyncedAt}, notFound
	}
	var best *candidate
	forms := q.Info.Forms()
	for _, converting := range []bool{false, true} {
		best = newest(found, best, func(c store.Collection) (conversion, bool) { return findConversion(c, forms, converting) })
	}
	if best == nil || best.absent {
		return answer{}, fmt.Errorf("%w: neither %s %q nor a list that would contain it",
			ErrNotRecorded, q.Info.Resource, q.Info.Name)
	}
	o, err := best.converted(nil, best.object)
	if err != nil {
		return answer{}, fmt.Errorf("collection %d: %s/%s: %w", best.collection.ID, o.Namespace, o.Name, err)
	}
	r.used(best.collection.ID)
	header := http.Header{"Content-Type": {best.to.Format.MediaType()}}
	return r.response(http.StatusOK, header, best.collection.SyncedAt, best.typed(nil, o)), nil
}

// candidate is the state of an object in one collection.
type candidate struct {
	collection store.Collection
	conversion
	object  store.Object
	absent  bool   // proven
	version string // the version of this state
}

// candidates returns the states of an object in all collections.
func (r *Replayer) candidates(ctx context.Context, q Request, all []store.Collection) (found []candidate, err error) {
	for _, c := range all {
		if c.Namespace != "" && c.Namespace != q.Info.Namespace {
			continue
		}
		s := candidate{collection: c}
		s.object, s.version, err = r.db.Object(ctx, c.ID, q.Info.Namespace, q.Info.Name)
		switch {
		case errors.Is(err, store.ErrNotFound):
			// A selection without the object does not prove its absence.
			if c.State != store.Complete || c.LabelSelector != "" || c.FieldSelector != "" {
				continue
			}
			s.absent = true
		case err != nil:
			return nil, err
		case c.State == store.Single:
			s.version = s.object.ResourceVersion
			s.collection.SyncedAt = s.object.UpdatedAt
		}
		if !supersedes(q.tombstone, s) {
			found = append(found, s)
		}
	}
	return found, nil
}

// newest returns the newest of best and of the candidates that have a conversion for the client.
func newest(found []candidate, best *candidate, conversionOf func(store.Collection) (conversion, bool)) *candidate {
	for _, s := range found {
		if best != nil && !newer(s.version, best.version) {
			continue
		}
		var ok bool
		if s.conversion, ok = conversionOf(s.collection); ok {
			best = &s
		}
	}
	return best
}

// newer reports whether a is a higher resourceVersion than b. If one of them is not a number, it is
// not, so that the first candidate stays.
func newer(a, b string) bool {
	x, errX := strconv.ParseUint(a, 10, 64)
	y, errY := strconv.ParseUint(b, 10, 64)
	return errX == nil && errY == nil && x > y
}

// response makes a response with the headers that say that it comes from a cache, and how old it is
// (RFC 9111 §5.1, RFC 9211).
func (r *Replayer) response(status int, header http.Header, at time.Time, raw []byte) answer {
	header.Set("Cache-Status", "rockpool; hit")
	header.Set("Age", strconv.FormatInt(max(0, int64(r.now().Sub(at)/time.Second)), 10))
	var body io.ReadCloser = http.NoBody
	if len(raw) > 0 {
		body = io.NopCloser(bytes.NewReader(raw))
	}
	return answer{&http.Response{
		Status: fmt.Sprintf("%d %s", status, http.StatusText(status)), StatusCode: status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: body, ContentLength: int64(len(raw)),
	}, at}
}

// tooLarge is the API server's error for a future resourceVersion. Clients retry without one.
func tooLarge() error {
	err := apierrors.NewTimeoutError("Too large resource version: "+
		"the link to the API server is down and the recorded version is older", 0)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{
		Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version",
	}}
	return err
}
