package record

import (
	"errors"
	"io"
	"net/http"
)

var (
	errNotAnObject = errors.New("not a list of API objects")
	errNoVersion   = errors.New("a list at no resourceVersion")
	errNotFirst    = errors.New("a further page of a list whose first pages were not recorded")
)

// sink takes a copy of a body.
type sink interface {
	write([]byte)
	// end is called once, behind the last write; complete tells that the body ended
	// as it should.
	end(complete bool)
}

// tee is a body that is recorded while it is read.
type tee struct {
	body      io.ReadCloser
	sink      sink
	remaining int64 // bytes that are still to come; negative: nobody knows
	ended     bool
}

// newTee makes the body of an answer that is recorded.
func newTee(resp *http.Response, to sink) *tee {
	t := &tee{body: resp.Body, sink: to, remaining: resp.ContentLength}
	if t.remaining == 0 { // also of an http.Response that was made by hand
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
	// A client that knows the length may be gone with the last byte, and what is read
	// then is not the end but the cancellation.
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
