package record

import (
	"bytes"

	"rockpool.dev/sidecar/api/wire"
)

// maxWholes bounds, in bytes, all bodies together that are kept whole until they have
// ended. One that finds no room is not recorded.
const maxWholes = 2 * wire.MaxValue

// whole collects a body up to a size and hands it on when it ended well.
type whole struct {
	recorder *Recorder
	max      int
	buf      bytes.Buffer
	over     bool
	done     func([]byte)
}

func (r *Recorder) whole(most int, done func([]byte)) *whole {
	return &whole{recorder: r, max: most, done: done}
}

func (w *whole) write(p []byte) {
	if w.over {
		return
	}
	n := int64(len(p))
	if all := w.recorder.wholes.Add(n); all > maxWholes || w.buf.Len()+len(p) > w.max {
		w.recorder.wholes.Add(-n)
		w.drop()
		return
	}
	w.buf.Write(p)
}

// drop gives up. Nothing is taken any more.
func (w *whole) drop() {
	w.over = true
	w.free()
}

func (w *whole) free() {
	w.recorder.wholes.Add(-int64(w.buf.Len()))
	w.buf = bytes.Buffer{}
}

func (w *whole) end(ok bool) {
	raw := w.buf.Bytes()
	w.free()
	if ok && !w.over && len(raw) > 0 {
		w.done(raw)
	}
}
