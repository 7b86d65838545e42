package dispatch

import (
	"net/http"

	"rockpool.dev/sidecar/api/agent"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/sidecar/watch"
	"rockpool.dev/sidecar/write"
)

// exchange is one request, with all that is decided about it at the door.
type exchange struct {
	request *http.Request
	info    *request.Info // that of source; it is large
	cache   *cache.Cache  // that the answer belongs to
	// subject is what the caller's token claims; empty: nothing.
	subject string
	// source names what is recorded. Its principal is the subject, which a successful answer
	// of the API server proves; it is empty for clients that are not recorded.
	source   record.Source
	body     body           // of requests that are read here; see readsBody
	acceptor write.Acceptor // nil: no acceptor handles the request
	reviewed bool           // it is a review, whose answer is recorded
	review   *sealedKey     // of a review; nil: its body is too large to be recorded
}

func newExchange(r *http.Request) *exchange {
	x := &exchange{request: r, source: record.Source{Info: request.Parse(r)}}
	x.info = &x.source.Info
	return x
}

// decide reads a request and decides about it, once.
func (d *Dispatcher) decide(r *http.Request) (*exchange, error) {
	x := newExchange(r)
	traceOf(r.Context()).Info = x.info
	x.reviewed = x.info.Class == request.ClassReview && !x.info.Unrecorded && d.ReviewLifetime > 0
	deletes := r.Method == http.MethodDelete && (x.info.Class == request.ClassWrite || x.info.Class == request.ClassDeleteMany)
	if x.reviewed || deletes || d.acceptorOf(x.info) != nil {
		var err error
		if x.request, x.body, err = readBody(r); err != nil {
			return nil, err
		}
	}
	if accept, ok := x.info.WithoutCBOR(); ok {
		x.request = withAccept(x.request, accept)
	}
	if x.request.Header.Get(acceptEncoding) != "" && !x.mayBeCompressed() {
		x.request = uncompressed(x.request)
	}
	tried := no
	if deletes {
		tried = onlyTries(x.info.DryRun, x.body)
		x.info.SetDryRun(tried == yes)
	}
	x.cache, x.acceptor, x.subject = d.Caches.Of(x.info), d.acceptorOf(x.info), d.Credentials.Subject(r.Header)
	x.source.Path, x.source.Started, x.source.Asked = r.URL.RequestURI(), d.Clock.Now(), x.cache.Ask()
	x.source.MayBeTried = tried == perhaps
	if d.Agents.Match(r.UserAgent()) {
		x.source.Principal = x.subject
	}
	if x.reviewed && !x.body.tooLarge {
		key, err := d.reviews.seal(x)
		if err != nil {
			return nil, err
		}
		x.review = &key
		x.source.Review = &record.Review{Question: key.name, Seal: key.close, Lifetime: d.ReviewLifetime}
	}
	return x, nil
}

func (d *Dispatcher) acceptorOf(info *request.Info) write.Acceptor {
	for _, a := range d.Acceptors {
		if a.Handles(info) {
			return a
		}
	}
	return nil
}

// withAccept is the request with another Accept header.
func withAccept(r *http.Request, accept string) *http.Request {
	changed := r.WithContext(r.Context())
	changed.Header = r.Header.Clone()
	changed.Header.Set("Accept", accept)
	return changed
}

// again is the request as it is sent, with a body that was read here in place again.
func (x *exchange) again() *http.Request {
	if x.body.read && !x.body.tooLarge {
		return withBody(x.request, x.body.bytes)
	}
	return x.request
}

// attempts is how often the request may be sent. A review changes nothing, so it may go to
// another address when the link to the first one breaks.
func (x *exchange) attempts() int {
	if x.review != nil {
		return 2
	}
	return 1
}

// changes tells that the request may change something.
func (x *exchange) changes() bool { return !x.info.IsRead() && !x.reviewed }

// repeatable tells that a change may be carried out twice.
func (x *exchange) repeatable() bool { return x.acceptor != nil && x.acceptor.Repeatable(x.write()) }

// write is the request for its acceptor.
func (x *exchange) write() write.Request {
	return write.Request{
		Principal: x.subject, Info: x.info, Sent: x.source.Started, Asked: x.source.Asked,
		ContentType: x.request.Header.Get("Content-Type"), Body: x.body.bytes, TooLarge: x.body.tooLarge,
	}
}

// watch is the request as one for a watch.
func (x *exchange) watch(agents *agent.Current) watch.Request {
	q := watch.Request{HTTP: x.request, Info: *x.info, Cache: x.cache, Source: x.source}
	if x.source.Principal == "" {
		q.Excluded = &watch.Excluded{Subject: x.subject, Ended: func() bool { return agents.Match(x.request.UserAgent()) }}
	}
	return q
}
