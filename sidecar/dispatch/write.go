package dispatch

import (
	"context"
	"fmt"
	"net/http"

	"rockpool.dev/sidecar/api/origin"
	"rockpool.dev/sidecar/write"
)

// WaitOnline returns when requests are worth sending, or with the error of the context.
func (d *Dispatcher) WaitOnline(ctx context.Context) error { return d.Upstream.WaitOnline(ctx) }

// Send sends a write that an acceptor has taken, with the principal's current token, and has the
// answer recorded. The error is write.ErrNoToken when no token is at hand, and origin.ErrForeign
// when something else has answered in the API server's place.
func (d *Dispatcher) Send(principal string, r *http.Request) (*http.Response, error) {
	seen, _ := d.Credentials.Seen(principal)
	authorization := d.Credentials.Authorization(principal, seen)
	if authorization == "" {
		return nil, write.ErrNoToken
	}
	r.Header.Set("Authorization", authorization)
	x := newExchange(r)
	x.cache = d.Caches.Of(x.info)
	x.source.Principal, x.source.Path, x.source.Started, x.source.Asked = principal, r.URL.RequestURI(), d.Clock.Now(), x.cache.Ask()
	resp, err := d.forward(x)
	if err == nil && !origin.FromAPIServer(resp) {
		resp.Body.Close()
		return nil, fmt.Errorf("%w: status %d", origin.ErrForeign, resp.StatusCode)
	}
	return resp, err
}
