package record

import (
	"errors"
	"io"
	"net/http"
)

var (
	errNotAnObject = errors.New("not a list of API objects")
	errNoVersion   = errors.New("a list without a resourceVersion")
	errNotFirst    = errors.New("a page of a list whose first pages are not recorded")
)

// sink takes a copy of a body.
type sink interface {
	write([]byte)
	// end is called once, after the last write. complete reports whether the whole body was read.
	end(complete bool)
}

// tee is a body that is recorded while it is read.
type tee struct {
	body      io.ReadCloser
	sink      sink
	remaining int64 // bytes still to come; negative: unknown
	ended     bool
}

// newTee makes the body of a response that is recorded.
func newTee(resp *http.Response, to sink) *tee {
	t := teeOf(resp, to)
	return &t
}

func teeOf(resp *http.Response, to sink) tee {
	t := tee{body: resp.Body, sink: to, remaining: resp.ContentLength}
	if t.remaining == 0 { // also in an http.Response that no transport made
		t.remaining = -1
	}
	return t
}

func (t *tee) Read(p []byte) (int, error) {
	n, err := t.body.Read(p)
	if t.ended {
		return n, err
	}
	if n > 0 {
		t.sink.write(p[:n])
	}
	// A client that knows the length may close the body after the last byte. The next read then
	// returns the cancellation, not the end.
	all := t.remaining > 0 && int64(n) >= t.remaining
	t.remaining -= int64(n)
	if all || err != nil {
		t.ended = true
		t.sink.end(all || errors.Is(err, io.EOF))
	}
	return n, err
}

func (t *tee) Close() error {
	if !t.ended {
		t.ended = true
		t.sink.end(false)
	}
	return t.body.Close()
}
