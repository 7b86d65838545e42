package dispatch

import (
	"bytes"
	"io"
	"net/http"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/upstream"
	"rockpool.dev/sidecar/write/lease"
)

// lease answers a request about one Lease. While the link is down the keeper does for one
// that is held.
func (f *Dispatcher) lease(r *http.Request, info request.Info) (*http.Response, error) {
	r, body, whole, err := buffered(r)
	if err != nil {
		return nil, err
	}
	contentType := r.Header.Get("Content-Type")
	if f.Upstream.Online() {
		x := lease.Exchange{Principal: f.subjects.of(r.Header), Info: &info, Asked: f.Clock.Now(), ContentType: contentType, Body: body}
		resp, err := f.pass(r, f.source(r, info))
		switch {
		case err == nil:
			x.Answer = peek(resp)
			x.Code, x.AnswerType = resp.StatusCode, resp.Header.Get("Content-Type")
			f.Leases.Observe(x)
			return resp, nil
		case !upstream.IsLinkError(err):
			return nil, err
		case !info.IsRead() && upstream.MayHaveArrived(err):
			return nil, ambiguous()
		}
	}
	subject, err := f.identify(r, info)
	switch {
	case err != nil:
		return nil, err
	case info.IsRead():
		if resp := f.Leases.Get(subject, &info); resp != nil {
			return resp, nil
		}
		return f.offline(r, info)
	case !whole:
		return nil, unavailable("nothing of this size is written while the link is down")
	}
	resp, err := f.Leases.Renew(subject, &info, contentType, body)
	if err != nil {
		return nil, f.refusal(info, err)
	}
	return resp, nil
}

// peek reads the body of an answer, up to maxQuestion, and leaves it to be read again.
func peek(resp *http.Response) []byte {
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxQuestion))
	rest := io.Reader(resp.Body)
	if err != nil {
		rest = broken{err}
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(raw), rest), resp.Body}
	return raw
}

// broken is the rest of a body that broke off.
type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }
