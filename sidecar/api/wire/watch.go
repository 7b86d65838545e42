package wire

import "fmt"

// A watch may be quiet for hours. Reuse keeps up to smallBuffer, in bytes, in any case, and up to
// largeBuffer while it is in use.
const (
	smallBuffer = 2 << 10
	largeBuffer = 64 << 10
)

// Reuse returns an empty buffer to be filled next, after the bytes in buffer were used: the same
// one, or nil if it is too large for what a watch has to hold at present.
func Reuse(buffer []byte) []byte {
	if size := cap(buffer); size > largeBuffer || size > smallBuffer && len(buffer) < size/2 {
		return nil
	}
	return buffer[:0]
}

// Frames splits a JSON watch body, a sequence of {"type":…,"object":…}, into frames while it is
// written.
type Frames struct {
	// Frame receives each complete frame without surrounding white space. The bytes are valid only
	// during the call. An error of Frame stops the splitting.
	Frame func(raw []byte) error

	val     value
	buf     []byte
	inside  bool
	failure error
}

// Write takes the next bytes of the body. After an error it always returns that error.
func (f *Frames) Write(p []byte) (int, error) {
	if f.failure != nil {
		return 0, f.failure
	}
	total := len(p)
	for len(p) > 0 {
		n, err := f.step(p)
		if err != nil {
			f.failure = err
			return total - len(p), err
		}
		p = p[n:]
	}
	return total, nil
}

// Partial reports whether the body so far ends inside a frame.
func (f *Frames) Partial() bool { return f.inside }

func (f *Frames) step(p []byte) (int, error) {
	if !f.inside {
		if n := skipSpace(p); n > 0 {
			return n, nil
		}
		if p[0] != '{' {
			return 0, fmt.Errorf("watch frame: %w: an object was expected, not %q", errSyntax, p[0])
		}
		f.inside = true
	}
	n, done, err := f.val.feed(p)
	if err != nil {
		return 0, fmt.Errorf("watch frame: %w", err)
	}
	if len(f.buf)+n > MaxValue {
		return 0, fmt.Errorf("watch frame: %w", ErrTooLarge)
	}
	if !done {
		f.buf = append(f.buf, p[:n]...)
		return n, nil
	}
	raw := p[:n]
	if len(f.buf) > 0 {
		f.buf = append(f.buf, p[:n]...)
		raw = f.buf
	}
	f.inside = false
	err = f.Frame(raw)
	f.buf = Reuse(f.buf)
	return n, err
}

// Types of watch events, as in metav1.WatchEvent.
const (
	Added    = "ADDED"
	Modified = "MODIFIED"
	Deleted  = "DELETED"
	Bookmark = "BOOKMARK"
	Error    = "ERROR"
)

// Event is a watch event. Object is a slice of the parsed frame.
type Event struct {
	Type   string
	Object []byte
}
