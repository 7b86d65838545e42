package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// MaxValue is the largest single JSON value, in bytes, that is kept in memory:
// an item of a list, a watch frame, a member of a list's envelope. etcd refuses
// objects beyond 1.5 MiB by default; the rest is margin for servers that were
// told otherwise.
const MaxValue = 16 << 20

// Errors of this package.
var (
	ErrTooLarge  = fmt.Errorf("value is larger than %d bytes", MaxValue)
	ErrTruncated = errors.New("input ends inside a value")
	errSyntax    = errors.New("not JSON")
)

// value finds the end of one JSON value in input that comes in pieces.
// The zero value is ready; it is used again after each value.
type value struct {
	depth   int
	scalar  bool // a number, true, false or null: ends before a delimiter
	str     bool // inside a string
	escaped bool // after a backslash inside a string
}

// feed consumes bytes of the value from p and returns how many belong to it and
// whether it is complete. A scalar is complete only when the delimiter behind it
// has been seen, which is not consumed.
func (v *value) feed(p []byte) (n int, done bool, err error) {
	for n < len(p) {
		if v.str {
			n += v.skipString(p[n:])
			if !v.str && v.depth == 0 {
				return n, v.end(), nil
			}
			continue
		}
		c := p[n]
		if v.scalar {
			if isSpace(c) || c == ',' || c == ']' || c == '}' {
				return n, v.end(), nil
			}
			n++
			continue
		}
		switch c {
		case '"':
			v.str = true
		case '{', '[':
			v.depth++
		case '}', ']':
			if v.depth--; v.depth < 0 {
				return n, false, fmt.Errorf("%w: unexpected %q", errSyntax, c)
			}
			if v.depth == 0 {
				return n + 1, v.end(), nil
			}
		default:
			if v.depth == 0 {
				if !isScalarStart(c) {
					return n, false, fmt.Errorf("%w: unexpected %q", errSyntax, c)
				}
				v.scalar = true
			}
		}
		n++
	}
	return n, false, nil
}

// skipString returns how many bytes of p belong to the string that v is in.
func (v *value) skipString(p []byte) int {
	if v.escaped {
		v.escaped = false
		return 1
	}
	quote := bytes.IndexByte(p, '"')
	inside := p
	if quote >= 0 {
		inside = p[:quote]
	}
	if slash := bytes.IndexByte(inside, '\\'); slash >= 0 {
		v.escaped = true
		return slash + 1
	}
	if quote < 0 {
		return len(p)
	}
	v.str = false
	return quote + 1
}

func (v *value) end() bool {
	*v = value{}
	return true
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

func isScalarStart(c byte) bool {
	return c == '-' || c == 't' || c == 'f' || c == 'n' || (c >= '0' && c <= '9')
}

func skipSpace(p []byte) int {
	n := 0
	for n < len(p) && isSpace(p[n]) {
		n++
	}
	return n
}

// Members calls f for each member of the JSON object raw, in order, with the
// member's value as it stands in raw. It stops at f's first error.
func Members(raw []byte, f func(key string, val []byte) error) error {
	p := raw[skipSpace(raw):]
	if len(p) == 0 || p[0] != '{' {
		return fmt.Errorf("%w: an object was expected", errSyntax)
	}
	p = p[1:]
	for first := true; ; first = false {
		p = p[skipSpace(p):]
		if len(p) == 0 {
			return ErrTruncated
		}
		if p[0] == '}' {
			return nil
		}
		if !first {
			if p[0] != ',' {
				return fmt.Errorf("%w: a comma was expected, not %q", errSyntax, p[0])
			}
			p = p[1:]
		}
		key, val, rest, err := member(p)
		if err != nil {
			return err
		}
		if err := f(key, val); err != nil {
			return err
		}
		p = rest
	}
}

// Elements calls f for each element of the JSON array raw, in order, as it stands
// in raw. It stops at f's first error.
func Elements(raw []byte, f func(val []byte) error) error {
	p := raw[skipSpace(raw):]
	if len(p) == 0 || p[0] != '[' {
		return fmt.Errorf("%w: an array was expected", errSyntax)
	}
	p = p[1:]
	for first := true; ; first = false {
		p = p[skipSpace(p):]
		if len(p) == 0 {
			return ErrTruncated
		}
		if p[0] == ']' {
			return nil
		}
		if !first {
			if p[0] != ',' {
				return fmt.Errorf("%w: a comma was expected, not %q", errSyntax, p[0])
			}
			p = p[1:]
		}
		val, rest, err := whole(p[skipSpace(p):])
		if err != nil {
			return err
		}
		if err := f(val); err != nil {
			return err
		}
		p = rest
	}
}

// member reads `"key" : value` from the head of p.
func member(p []byte) (key string, val, rest []byte, err error) {
	p = p[skipSpace(p):]
	quoted, p, err := whole(p)
	if err != nil {
		return "", nil, nil, err
	}
	if key, err = Unquote(quoted); err != nil {
		return "", nil, nil, err
	}
	p = p[skipSpace(p):]
	if len(p) == 0 {
		return "", nil, nil, ErrTruncated
	}
	if p[0] != ':' {
		return "", nil, nil, fmt.Errorf("%w: a colon was expected, not %q", errSyntax, p[0])
	}
	p = p[1:]
	val, rest, err = whole(p[skipSpace(p):])
	return key, val, rest, err
}

// whole cuts the complete value at the head of p from the rest.
func whole(p []byte) (val, rest []byte, err error) {
	var v value
	n, done, err := v.feed(p)
	if err != nil {
		return nil, nil, err
	}
	if !done && !v.scalar { // a scalar may end with the input
		return nil, nil, ErrTruncated
	}
	return p[:n], p[n:], nil
}

// Unquote gives the text of a JSON string.
func Unquote(raw []byte) (string, error) {
	if len(raw) >= 2 && raw[0] == '"' && bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), nil
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", fmt.Errorf("%w: a string was expected", errSyntax)
	}
	return s, nil
}
