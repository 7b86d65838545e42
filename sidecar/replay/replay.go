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

// ErrNotRecorded says that the store cannot answer. Its text, after this one,
// says what was never recorded.
var ErrNotRecorded = errors.New("not recorded")

// Replayer answers from a store.
type Replayer struct {
	db   *store.DB
	now  func() time.Time
	used func(collection int64)
}

// New makes a Replayer. now tells the age of answers; nil means time.Now. used is
// told which collections have answered; nil means nobody.
func New(db *store.DB, now func() time.Time, used func(collection int64)) *Replayer {
	if now == nil {
		now = time.Now
	}
	if used == nil {
		used = func(int64) {}
	}
	return &Replayer{db: db, now: now, used: used}
}

// Request is what is to be answered.
type Request struct {
	Principal string // proven by the caller
	Info      request.Info
	Path      string // the URL's path and query
	// IfNoneMatch is the header of that name.
	IfNoneMatch string

	tombstone *store.Tombstone // what is hidden of the object asked for; nil: nothing
}

// Answer gives the answer to a GET or LIST. An error is ErrNotRecorded, an
// apierrors.APIStatus that the client shall see, or the store's. The body, when
// it is read, may fail with store.ErrChanged.
func (r *Replayer) Answer(ctx context.Context, q Request) (*http.Response, error) {
	// What is there may be replaced between one look and the next.
	for range 3 {
		resp, err := r.answer(ctx, q)
		if !errors.Is(err, store.ErrChanged) {
			return resp, err
		}
	}
	return nil, fmt.Errorf("%w: the cache is changing", ErrNotRecorded)
}

func (r *Replayer) answer(ctx context.Context, q Request) (*http.Response, error) {
	doc, err := r.document(ctx, q)
	if err != nil && !errors.Is(err, ErrNotRecorded) {
		return nil, err
	}
	rows, errRows := answer{}, fmt.Errorf("%w: no answer to this request", ErrNotRecorded)
	switch q.Info.Class {
	case request.ClassGet:
		// A context that can end costs a goroutine a question, and these are short.
		rows, errRows = r.get(context.WithoutCancel(ctx), q)
	case request.ClassList:
		rows, errRows = r.list(ctx, q)
	}
	var refusal apierrors.APIStatus
	if errRows != nil && !errors.Is(errRows, ErrNotRecorded) && !errors.As(errRows, &refusal) {
		return nil, errRows // nobody knows what is newer
	}
	// A Table that was recorded whole is what the client would rather have, unless
	// something newer is known.
	if err == nil && (errors.Is(errRows, ErrNotRecorded) || !rows.at.After(doc.at)) {
		return doc.Response, nil
	}
	return rows.Response, errRows
}

// answer is a response, or the time of the proof that there is none.
type answer struct {
	*http.Response
	at time.Time
}

// get gives the newest that is known of an object, in a form that the client takes
// or that can be turned into one. It is absent when the newest that is known, in
// whatever form, is that: a complete list without it, or the server's own word for
// this very object.
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
		return answer{}, fmt.Errorf("%w: neither %s %q nor a list that would have it", ErrNotRecorded, q.Info.Resource, q.Info.Name)
	}
	o, err := best.converted(nil, best.object)
	if err != nil {
		return answer{}, fmt.Errorf("collection %d: %s/%s: %w", best.collection.ID, o.Namespace, o.Name, err)
	}
	at, raw := best.collection.SyncedAt, best.typed(nil, o)
	r.used(best.collection.ID)
	return answer{r.response(http.StatusOK, http.Header{"Content-Type": {best.to.Format.MediaType()}}, at, io.NopCloser(bytes.NewReader(raw)), int64(len(raw))), at}, nil
}

// candidate is what one collection knows of an object.
type candidate struct {
	collection store.Collection
	conversion
	object  store.Object
	absent  bool   // proven
	version string // at which this was true
}

// candidates are what all collections know of an object.
func (r *Replayer) candidates(ctx context.Context, q Request, all []store.Collection) (found []candidate, err error) {
	for _, c := range all {
		if c.Namespace != "" && c.Namespace != q.Info.Namespace {
			continue
		}
		s := candidate{collection: c}
		s.object, s.version, err = r.db.Object(ctx, c.ID, q.Info.Namespace, q.Info.Name)
		switch {
		case errors.Is(err, store.ErrNotFound):
			// A selection without the object says nothing about it.
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

// newest finds a sighting that is newer than best, in a collection that has a way
// to the client.
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

// newer compares resourceVersions. Those that are not numbers tell nothing; the
// first that was found stays.
func newer(a, b string) bool {
	x, errX := strconv.ParseUint(a, 10, 64)
	y, errY := strconv.ParseUint(b, 10, 64)
	return errX == nil && errY == nil && x > y
}

// response builds an answer that says that it comes from a cache, and how old it
// is (RFC 9111 §5.1, RFC 9211).
func (r *Replayer) response(status int, header http.Header, at time.Time, body io.ReadCloser, length int64) *http.Response {
	header.Set("Cache-Status", "rockpool; hit")
	header.Set("Age", strconv.FormatInt(max(0, int64(r.now().Sub(at)/time.Second)), 10))
	return &http.Response{
		Status: fmt.Sprintf("%d %s", status, http.StatusText(status)), StatusCode: status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: body, ContentLength: length,
	}
}

// tooLarge is the server's answer when it is asked for a state that it has not
// reached; clients then ask without a version.
func tooLarge() error {
	err := apierrors.NewTimeoutError("Too large resource version: the link to the API server is down and what was recorded is older", 0)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version"}}
	return err
}
