package record

import (
	"errors"
	"io"
)

var (
	errNotAnObject = errors.New("not a list of API objects")
	errNoVersion   = errors.New("a list at no resourceVersion")
	errNotFirst    = errors.New("a further page of a list whose first pages were not recorded")
)

// sink takes a copy of a body.
type sink interface {
	write([]byte)
	// end is called once, behind the last write; whole tells that the body ended
	// as it should.
	end(whole bool)
}

// tee is a body that is recorded while it is read.
type tee struct {
	body  io.ReadCloser
	sink  sink
	ended bool
}

func (t *tee) Read(p []byte) (int, error) {
	n, err := t.body.Read(p)
	if t.ended {
		return n, err
	}
	if n > 0 {
		t.sink.write(p[:n])
	}
	if err != nil {
		t.ended = true
		t.sink.end(errors.Is(err, io.EOF))
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
