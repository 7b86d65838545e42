package record

import (
	"bytes"
	"sync"

	"rockpool.dev/sidecar/api/wire"
)

// maxBuffered bounds the bytes of all buffered bodies. A body that does not fit is not recorded.
const maxBuffered = 2 * wire.MaxValue

// bodyBuffer is a sink that buffers a body up to a size and passes it to done if it is complete.
type bodyBuffer struct {
	recorder *Recorder
	max      int
	buf      bytes.Buffer
	over     bool
	pooled   *[]byte // goes back to objectBuffers after its use by buf; nil: it is of no pool
	kept     bool    // done has kept a part of it, so that it does not go back
	source   *Source // what is doubtful if the body does not fit; nil: nothing
	certain  bool    // it is doubtful as well without the whole body: the status has told enough
	done     func([]byte)
}

func (r *Recorder) bodyBuffer(limit int, source *Source, done func([]byte)) *bodyBuffer {
	return &bodyBuffer{recorder: r, max: limit, source: source, done: done}
}

// answerBody is a bodyBuffer for a response whose status alone tells that the object has changed,
// or that it is not there. Its body may be missing, or break off.
func (r *Recorder) answerBody(limit int, source *Source, done func([]byte)) *bodyBuffer {
	b := r.bodyBuffer(limit, source, done)
	b.certain = true
	return b
}

// objectBuffers are buffers for bodies that are small and are not kept.
var objectBuffers = sync.Pool{New: func() any { b := make([]byte, 0, objectBuffer); return &b }}

// objectBuffer is the size of such a buffer, in bytes. Most objects fit.
const objectBuffer = 4 << 10

// pool has the body buffered in a buffer of the pool, as far as it fits.
func (b *bodyBuffer) pool() {
	b.pooled = objectBuffers.Get().(*[]byte)
	b.buf = *bytes.NewBuffer(*b.pooled)
}

func (b *bodyBuffer) write(p []byte) {
	if b.over {
		return
	}
	b.buf.Write(p)
	if all := b.recorder.buffered.Add(int64(len(p))); all > maxBuffered || b.buf.Len() > b.max {
		b.drop()
	}
}

// drop gives the body up and ignores the rest of it.
func (b *bodyBuffer) drop() {
	b.over = true
	b.free()
}

func (b *bodyBuffer) free() {
	b.recorder.buffered.Add(-int64(b.buf.Len()))
	b.buf = bytes.Buffer{}
}

func (b *bodyBuffer) end(complete bool) {
	raw := b.buf.Bytes()
	b.free()
	switch {
	case b.certain && (!complete || len(raw) == 0 && !b.over):
		b.recorder.changed(*b.source)
	case !complete:
	case b.over && b.source != nil:
		droppedTotal.WithLabelValues("size").Inc()
		b.recorder.doubtOf(b.source)
	case !b.over && len(raw) > 0:
		b.done(raw)
	}
	if b.pooled != nil && !b.kept {
		objectBuffers.Put(b.pooled)
	}
	b.pooled = nil
}
