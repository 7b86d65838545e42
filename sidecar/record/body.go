package record

import (
	"bytes"

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
	source   *Source // what is doubtful if the body does not fit; nil: nothing
	done     func([]byte)
}

func (r *Recorder) bodyBuffer(limit int, source *Source, done func([]byte)) *bodyBuffer {
	return &bodyBuffer{recorder: r, max: limit, source: source, done: done}
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
	case !complete:
	case b.over && b.source != nil:
		droppedTotal.WithLabelValues("size").Inc()
		b.recorder.doubtOf(b.source)
	case !b.over && len(raw) > 0:
		b.done(raw)
	}
}
