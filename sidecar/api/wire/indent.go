package wire

import "io"

// indentStep is how many bytes of indented JSON are made at once.
const indentStep = 16 << 10

// Indent indents JSON by two blanks for each level while it is read, as the API server does for
// people. It needs little memory, and does not validate.
func Indent(source io.ReadCloser) io.ReadCloser {
	return &indented{source: source, in: make([]byte, 0, indentStep/4)}
}

type indented struct {
	source io.ReadCloser
	in     []byte // read, but not indented yet: in[at:]
	at     int
	out    []byte // indented, but not returned yet: out[off:]
	off    int
	err    error // of source

	depth   int
	opened  bool // the last byte has opened an object or array
	text    bool // inside a string
	escaped bool // behind a backslash in it
}

func (i *indented) Close() error { return i.source.Close() }

func (i *indented) Read(p []byte) (int, error) {
	for i.off == len(i.out) {
		i.out, i.off = i.out[:0], 0
		if i.at == len(i.in) {
			if i.err != nil {
				return 0, i.err
			}
			var n int
			n, i.err = i.source.Read(i.in[:cap(i.in)])
			i.in, i.at = i.in[:n], 0
		}
		for ; i.at < len(i.in) && len(i.out) < indentStep; i.at++ {
			i.add(i.in[i.at])
		}
	}
	n := copy(p, i.out[i.off:])
	i.off += n
	return n, nil
}

// add indents one byte.
func (i *indented) add(c byte) {
	if i.text {
		i.out = append(i.out, c)
		i.text = i.escaped || c != '"'
		i.escaped = !i.escaped && c == '\\'
		return
	}
	switch c {
	case ' ', '\t', '\r', '\n':
		return
	case '}', ']':
		i.depth--
		if !i.opened {
			i.line()
		}
		i.opened = false
		i.out = append(i.out, c)
		return
	}
	if i.opened {
		i.line()
	}
	i.opened, i.text = c == '{' || c == '[', c == '"'
	i.out = append(i.out, c)
	switch c {
	case '{', '[':
		i.depth++
	case ',':
		i.line()
	case ':':
		i.out = append(i.out, ' ')
	}
}

// line begins a line.
func (i *indented) line() {
	i.out = append(i.out, '\n')
	for range i.depth {
		i.out = append(i.out, "  "...)
	}
}
