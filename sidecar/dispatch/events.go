package dispatch

import (
	"context"
	"io"
	"net/http"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/sidecar/upstream"
	"rockpool.dev/sidecar/write/outbox"
)

// event answers a write of an Event. When the link is down it is queued; also when the link
// breaks behind it, if it does no harm to send it twice.
func (f *Dispatcher) event(r *http.Request, info request.Info) (*http.Response, error) {
	r, body, whole, err := buffered(r)
	if err != nil {
		return nil, err
	}
	contentType := r.Header.Get("Content-Type")
	inDoubt := false // it may have been carried out
	if f.Upstream.Online() {
		source := f.source(r, info)
		resp, err := f.pass(r, source)
		switch {
		case err == nil:
			if resp.StatusCode < 300 {
				f.Outbox.Superseded(f.subjects.of(r.Header), &info, contentType, body)
			}
			return resp, nil
		case !upstream.IsLinkError(err):
			return nil, err
		case upstream.MayHaveArrived(err) && !outbox.Repeatable(&info, contentType, body):
			return nil, ambiguous()
		}
		inDoubt = upstream.MayHaveArrived(err)
	}
	resp, err := f.queue(r, info, contentType, body, whole)
	if err != nil && inDoubt {
		return nil, ambiguous()
	}
	return resp, err
}

// queue answers a write of an Event that the API server has not answered.
func (f *Dispatcher) queue(r *http.Request, info request.Info, contentType string, body []byte, whole bool) (*http.Response, error) {
	subject, err := f.identify(r, info)
	if err != nil {
		return nil, err
	}
	if !whole {
		return nil, unavailable("the Event is too large to be queued")
	}
	f.credentials.put(subject, r.Header.Get("Authorization")) // it is proven, and the newest that is known
	resp, err := f.Outbox.Accept(r.Context(), outbox.Write{Principal: subject, Info: &info, ContentType: contentType, Body: body,
		Recorded: func(ctx context.Context) ([]byte, error) { return f.recorded(ctx, r, info) }})
	if err != nil {
		return nil, f.refusal(info, err)
	}
	return resp, nil
}

// recorded gives an object in JSON as the cache has it.
func (f *Dispatcher) recorded(ctx context.Context, r *http.Request, info request.Info) ([]byte, error) {
	info.Verb, info.Class = request.Get, request.ClassGet
	info.Accept, info.RawAccept = request.ParseAccept(wire.MediaTypeJSON), wire.MediaTypeJSON
	q, err := f.prove(r, info)
	if err != nil {
		return nil, err
	}
	replayer := f.cache(&info).Replayer
	if replayer == nil {
		return nil, noCache()
	}
	resp, err := replayer.Answer(ctx, q)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// Deliver sends what was queued while the link was down, until ctx ends.
func (f *Dispatcher) Deliver(ctx context.Context) error { return f.Outbox.Run(ctx, courier{f}) }

// courier carries queued Events.
type courier struct{ flow *Dispatcher }

var _ outbox.Sender = courier{}

func (c courier) WaitOnline(ctx context.Context) error { return c.flow.Upstream.WaitOnline(ctx) }

func (c courier) Send(principal string, r *http.Request) (*http.Response, error) {
	seen, _ := c.flow.credentials.get(principal)
	authorization := c.flow.authorization(principal, seen)
	if authorization == "" {
		return nil, outbox.ErrNoToken
	}
	r.Header.Set("Authorization", authorization)
	source := record.Source{Principal: principal, Info: request.Parse(r), Path: r.URL.RequestURI(), Started: c.flow.Clock.Now()}
	return c.flow.pass(r, source)
}
