package replay

import (
	"io"
	"net/http"
	"sync"
)

// objectBuffer is the size of the buffers for answers with one object, in bytes. Most objects fit.
const objectBuffer = 4 << 10

var objectBuffers = sync.Pool{New: func() any { b := make([]byte, objectBuffer); return &b }}

// objectBody is the body of an answer with one object. Its bytes are in a buffer that others use
// after Close, unless they did not fit.
type objectBody struct {
	rest   []byte  // not read yet
	buffer *[]byte // nil: closed
}

func newObjectBody() *objectBody {
	return &objectBody{buffer: objectBuffers.Get().(*[]byte)}
}

func (b *objectBody) Read(p []byte) (int, error) {
	switch {
	case b.buffer == nil:
		return 0, http.ErrBodyReadAfterClose
	case len(b.rest) == 0:
		return 0, io.EOF
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

func (b *objectBody) Close() error {
	if b.buffer != nil {
		objectBuffers.Put(b.buffer)
		b.rest, b.buffer = nil, nil
	}
	return nil
}
