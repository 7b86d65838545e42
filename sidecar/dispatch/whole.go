package dispatch

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
)

// maxWhole is how much of the answer to a write is read before its client sees any of it, in bytes.
// Nearly all are smaller.
const maxWhole = 64 << 10

// endless are subresources whose answers to a write may have no end.
var endless = []string{"attach", "exec", "portforward", "proxy"}

// whole reads the answer to a write before its client sees its status. If the link breaks in between,
// the client then learns that its write may have been carried out. Half an answer would end its
// connection, as if the sidecar had died.
func (x *exchange) whole(resp *http.Response) (*http.Response, error) {
	if !x.changes() || !x.info.IsResource || slices.Contains(endless, x.info.Subresource) || resp.StatusCode < http.StatusOK {
		return resp, nil
	}
	start, err := io.ReadAll(io.LimitReader(resp.Body, maxWhole))
	switch {
	case err == nil && len(start) < maxWhole:
		if err := resp.Body.Close(); err != nil {
			return nil, err
		}
		resp.Body = io.NopCloser(bytes.NewReader(start))
	case err == nil:
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(start), resp.Body), resp.Body}
	case x.request.Context().Err() != nil:
		return nil, errors.Join(err, resp.Body.Close())
	default:
		_ = resp.Body.Close() // the link is broken
		return nil, ambiguous()
	}
	return resp, nil
}
