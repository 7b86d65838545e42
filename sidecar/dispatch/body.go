package dispatch

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
)

// maxBody bounds, in bytes, the body of a request that is read before it is sent: reviews, the
// options of a DELETE, Events and Leases are much smaller. Larger bodies pass unread.
const maxBody = 64 << 10

// body is the body of a request.
type body struct {
	bytes    []byte
	read     bool
	tooLarge bool // for maxBody; bytes is nil then
}

// readBody reads the body of a request up to maxBody. The request that it gives sends the same
// body.
func readBody(r *http.Request) (*http.Request, body, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return r, body{read: true}, nil
	}
	raw, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return nil, body{}, fmt.Errorf("read request body: %w", err)
	}
	if len(raw) <= maxBody {
		_ = r.Body.Close() // all of it was read
		return withBody(r, raw), body{bytes: raw, read: true}, nil
	}
	out := r.WithContext(r.Context())
	out.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(raw), r.Body), r.Body}
	return out, body{read: true, tooLarge: true}, nil
}

// withBody is the request with a body that was read already.
func withBody(r *http.Request, raw []byte) *http.Request {
	out := r.WithContext(r.Context())
	out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(raw)), int64(len(raw))
	if len(raw) == 0 {
		out.Body = http.NoBody
	}
	return out
}
