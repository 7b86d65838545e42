package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
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
	db  *store.DB
	now func() time.Time
	rec Recorder

	selectors selectors
}

// Recorder is what the Replayer needs of the recorder of its store.
type Recorder interface {
	// Used is told which collection has answered.
	Used(collection int64)
	// Doubtful reports whether a client was told something of the objects that the store does not
	// have. A key without a name is for a namespace, and one without that for the resource.
	Doubtful(store.Resource, store.Key) bool
	// Oversized says which collection of the objects is too large for the cache, and what to change;
	// empty: none.
	Oversized(res store.Resource, namespace string) string
	// Damaged is told which collection has a damaged payload.
	Damaged(collection int64)
}

// New makes a Replayer. now is for the age of responses; nil means time.Now.
func New(db *store.DB, now func() time.Time, rec Recorder) *Replayer {
	if now == nil {
		now = time.Now
	}
	return &Replayer{db: db, now: now, rec: rec}
}

// Request is the request to answer.
type Request struct {
	Principal string // proven by the caller
	Info      request.Info
	Path      string // the URL's path and query
	// IfNoneMatch is the header of that name.
	IfNoneMatch string
}

func (q *Request) resource() store.Resource {
	return store.Resource{Principal: q.Principal, Group: q.Info.Group, Resource: q.Info.Resource}
}

// Answer returns the response to a GET or LIST. An error is ErrNotRecorded, an apierrors.APIStatus
// for the client, or the store's. Reading the body may fail with store.ErrChanged.
func (r *Replayer) Answer(ctx context.Context, q Request) (*http.Response, error) {
	return unchanged(func() (*http.Response, error) { return r.answer(ctx, &q) })
}

// unchanged reads again what was replaced between two reads.
func unchanged[T any](read func() (T, error)) (answer T, err error) {
	for range 3 {
		if answer, err = read(); !errors.Is(err, store.ErrChanged) {
			return answer, err
		}
	}
	return answer, fmt.Errorf("%w: the cache keeps changing", ErrNotRecorded)
}

func (r *Replayer) answer(ctx context.Context, q *Request) (*http.Response, error) {
	if err := r.check(ctx, q); err != nil {
		return nil, err
	}
	if q.Info.Class == request.ClassGet {
		// A cancelable context costs a goroutine for each query, and these are short.
		return r.get(context.WithoutCancel(ctx), q)
	}
	// The client prefers a verbatim response, for example a Table, unless something newer is known.
	resp, err := r.document(ctx, *q)
	if errors.Is(err, ErrNotRecorded) && q.Info.Class == request.ClassList {
		return r.list(ctx, *q)
	}
	return resp, err
}

// get returns the recorded state of an object, in a form that the client accepts or that can be
// converted to one. It is a state that is newer than all that contradicts it, in any form and API
// version. The object is absent if that is newer than all that contradicts it.
func (r *Replayer) get(ctx context.Context, q *Request) (*http.Response, error) {
	known, err := r.known(ctx, q)
	if err != nil {
		return nil, err
	}
	if known.HasResponse { // as for a list, the client prefers it
		if resp, err := r.document(ctx, *q); !errors.Is(err, ErrNotRecorded) {
			return resp, err
		}
	}
	if version, ok := known.absent(); ok {
		if isOlder(version, q.Info.ResourceVersion) {
			return nil, tooLarge()
		}
		return nil, apierrors.NewNotFound(schema.GroupResource{Group: q.Info.Group, Resource: q.Info.Resource}, q.Info.Name)
	}
	best, ok, err := current(known, &q.Info)
	switch {
	case err != nil:
		return nil, err
	case !ok && len(known.all)+len(known.scopes) > 0:
		return nil, fmt.Errorf("%w: the latest state of %s %q, or not in a form that the client accepts%s", ErrNotRecorded, q.Info.Resource, q.Info.Name, r.oversized(*q))
	case !ok:
		return nil, fmt.Errorf("%w: neither %s %q nor a list that would contain it%s", ErrNotRecorded, q.Info.Resource, q.Info.Name, r.oversized(*q))
	case isOlder(best.version(), q.Info.ResourceVersion):
		return nil, tooLarge()
	}
	o := best.Object // a copy
	if o.Payload, err = r.db.Payload(ctx, &best.ObjectState); err != nil {
		return nil, r.damaged(best.Collection.ID, err)
	}
	if o, err = best.converted(nil, o); err != nil {
		return nil, fmt.Errorf("collection %d: %s/%s: %w", best.Collection.ID, o.Namespace, o.Name, err)
	}
	r.rec.Used(best.Collection.ID)
	at := best.Collection.SyncedAt
	if best.Collection.State == store.Single {
		at = o.UpdatedAt
	}
	body := newObjectBody()
	body.rest = best.typed((*body.buffer)[:0], o)
	resp := r.response(http.StatusOK, http.Header{"Content-Type": {best.to.Format.MediaType()}}, at, nil)
	resp.Body, resp.ContentLength = body, int64(len(body.rest))
	return resp, nil
}

// known returns what is known of the object of a request.
func (r *Replayer) known(ctx context.Context, q *Request) (*knowledge, error) {
	key := store.Key{Namespace: q.Info.Namespace, Name: q.Info.Name}
	if r.rec.Doubtful(q.resource(), key) {
		return nil, fmt.Errorf("%w: %s %q has changed, and that could not be recorded", ErrNotRecorded, q.Info.Resource, q.Info.Name)
	}
	found, err := r.db.Known(ctx, q.resource(), key, q.Path, q.Info.RawAccept)
	if err != nil {
		return nil, err
	}
	return newKnowledge(found, q.Info.Namespace, &r.selectors), nil
}

// isOlder reports whether a state that is known up to a version may be older than a client asks for.
func isOlder(version, asked string) bool {
	return asked != "" && asked != "0" && (version == "" || store.NewerVersion(asked, version))
}

// state is a recorded state of an object, and its conversion for the client.
type state struct {
	store.ObjectState
	conversion
}

// version is the version up to which the state is known.
func (s *state) version() string {
	if s.Collection.State == store.Complete {
		return s.Collection.ResourceVersion
	}
	return s.Object.ResourceVersion
}

// current finds the state of an object that holds, in the form that the client prefers: unconverted
// if possible.
func current(known *knowledge, info *request.Info) (best state, ok bool, err error) {
	forms := info.Forms()
	for _, converting := range []bool{false, true} {
		for _, s := range known.States {
			if ok && converting || s.Collection.Version != info.Version {
				continue
			}
			conversion, found := findConversion(*s.Collection, forms, converting)
			if !found || ok && slices.Index(forms, conversion.to) >= slices.Index(forms, best.to) {
				continue
			}
			holds, err := known.current(&s)
			if err != nil {
				return best, false, err
			}
			if holds {
				best, ok = state{s, conversion}, true
			}
		}
	}
	return best, ok, nil
}

// damaged notes that a payload is damaged. Only its collection is lost.
func (r *Replayer) damaged(collection int64, err error) error {
	if errors.Is(err, store.ErrDamaged) {
		r.rec.Damaged(collection)
	}
	return err
}

// response makes a response with the headers that say that it comes from a cache, and how old it is
// (RFC 9111 §5.1, RFC 9211).
func (r *Replayer) response(status int, header http.Header, at time.Time, raw []byte) *http.Response {
	header["Cache-Status"] = cacheStatus
	header["Age"] = []string{strconv.FormatInt(max(0, int64(r.now().Sub(at)/time.Second)), 10)}
	var body io.ReadCloser = http.NoBody
	if len(raw) > 0 {
		body = io.NopCloser(bytes.NewReader(raw))
	}
	return &http.Response{
		Status: statusLine(status), StatusCode: status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: body, ContentLength: int64(len(raw)),
	}
}

// cacheStatus is a value of Cache-Status, which nobody changes.
var cacheStatus = []string{"rockpool; hit"}

// statusLine is http.Response.Status of a status.
func statusLine(status int) string {
	if status == http.StatusOK { // nearly always
		return "200 OK"
	}
	return strconv.Itoa(status) + " " + http.StatusText(status)
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
