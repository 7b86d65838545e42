package record

import (
	"bytes"

	"rockpool.dev/sidecar/api/wire"
)

// maxBuffered bounds, in bytes, all bodies together that are kept whole until they have
// ended. One that finds no room is not recorded.
const maxBuffered = 2 * wire.MaxValue

// bodyBuffer collects a body up to a size and hands it on when it ended well.
type bodyBuffer struct {
	recorder *Recorder
	max      int
	buf      bytes.Buffer
	over     bool
	done     func([]byte)
}

func (r *Recorder) bodyBuffer(limit int, done func([]byte)) *bodyBuffer {
	return &bodyBuffer{recorder: r, max: limit, done: done}
}

func (b *bodyBuffer) write(p []byte) {
	if b.over {
		return
	}
	n := int64(len(p))
	if all := b.recorder.buffered.Add(n); all > maxBuffered || b.buf.Len()+len(p) > b.max {
		b.recorder.buffered.Add(-n)
		b.drop()
		return
	}
	b.buf.Write(p)
}

// drop gives up. Nothing is taken any more.
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
	if complete && !b.over && len(raw) > 0 {
		b.done(raw)
	}
}
