package dispatch

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"

	"rockpool.dev/sidecar/api/request"
)

// maxWhole is how much of the answer to a write is read before its client sees any of it, in bytes.
// Nearly all are smaller.
const maxWhole = 64 << 10

// mayBeEndless reports whether the answer to a write may have no end: that of another server or a
// container, and that of a subresource that nobody here knows unless it tells its length.
func mayBeEndless(info *request.Info, resp *http.Response) bool {
	subresource, _, _ := strings.Cut(info.Subresource, "/")
	switch subresource {
	case "attach", "exec", "portforward", "proxy":
		return true
	case "scale", "eviction", "binding":
		return false
	}
	return info.Legacy || info.Class == request.ClassIndirect && resp.ContentLength < 0
}

// whole reads the answer to a write before its client sees its status. If the link breaks in
// between, the client then learns that its write may have been carried out. Half an answer would
// end its connection, as if the sidecar had died.
func (x *exchange) whole(resp *http.Response) (*http.Response, error) {
	if !x.changes() || !x.info.IsResource || mayBeEndless(x.info, resp) || resp.StatusCode < http.StatusOK {
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
