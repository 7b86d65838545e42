package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
)

// MaxValue is the size in bytes of the largest value that is kept in memory: an item of a list, a
// watch frame, or another member of a list. By default etcd rejects objects larger than 1.5 MiB;
// the rest is margin for servers with a higher limit.
const MaxValue = 16 << 20

// Errors of this package.
var (
	ErrTooLarge  = fmt.Errorf("value is larger than %d bytes", MaxValue)
	ErrTruncated = errors.New("input ends inside a value")
	errSyntax    = errors.New("not JSON")
)

// value finds the end of one JSON value in input that arrives in chunks. The zero value is ready
// for use, and each end resets it.
type value struct {
	depth   int
	scalar  bool // inside a number, true, false or null, which ends before a delimiter
	str     bool // inside a string
	escaped bool // after a backslash inside a string
}

// feed returns how many bytes of p belong to the value and whether it is complete. A scalar is
// complete only at the delimiter after it, which is not consumed.
func (v *value) feed(p []byte) (n int, done bool, err error) {
	for n < len(p) {
		switch c := p[n]; {
		case v.str:
			n += v.skipString(p[n:])
			if !v.str && v.depth == 0 {
				return n, v.end(), nil
			}
		case v.depth > 0:
			n += v.skipInside(p[n:])
			if !v.str && v.depth == 0 {
				return n, v.end(), nil
			}
		case v.scalar:
			if isSpace(c) || c == ',' || c == ']' || c == '}' {
				return n, v.end(), nil
			}
			n++
		case byteClasses[c] == quote:
			v.str = true
			n++
		case byteClasses[c] == opening:
			v.depth++
			n++
		case isScalarStart(c):
			v.scalar = true
			n++
		default:
			return n, false, fmt.Errorf("%w: unexpected %q", errSyntax, c)
		}
	}
	return n, false, nil
}

// skipInside returns how many bytes of p belong to the object or array that v is in. It stops after
// the end of the object or array, and at the end of p inside a string.
func (v *value) skipInside(p []byte) (n int) {
	depth := v.depth
	for n < len(p) && depth > 0 {
		switch byteClasses[p[n]] {
		case opening:
			depth++
		case closing:
			depth--
		case quote:
			n++
			if n += unescapedLen(p[n:]); n == len(p) || p[n] != '"' {
				v.depth, v.str = depth, true
				return n
			}
		}
		n++
	}
	v.depth = depth
	return n
}

// byteClasses classifies bytes outside of strings: one load per byte instead of several
// comparisons.
var byteClasses = [256]byteClass{'"': quote, '{': opening, '[': opening, '}': closing, ']': closing}

type byteClass uint8

const (
	_ byteClass = iota // numbers, literals, commas, colons and white space
	quote
	opening
	closing
)

// skipString returns how many bytes of p belong to the string that v is in.
func (v *value) skipString(p []byte) int {
	if v.escaped {
		v.escaped = false
		return 1
	}
	n := unescapedLen(p)
	if n == len(p) {
		return n
	}
	if p[n] == '"' {
		v.str = false
	} else {
		v.escaped = true
	}
	return n + 1
}

// unescapedLen returns the number of bytes before the first quote or backslash. It checks eight
// bytes at a time: most strings are too short for bytes.IndexByte to be faster, and it would take
// two calls.
func unescapedLen(p []byte) (n int) {
	const (
		ones   = 0x0101010101010101
		highs  = 0x8080808080808080
		quotes = ones * '"'
		slants = ones * '\\'
	)
	for ; len(p)-n >= 8; n += 8 {
		word := binary.LittleEndian.Uint64(p[n:])
		q, s := word^quotes, word^slants
		// The lowest set bit marks the first zero byte of either.
		if found := ((q-ones)&^q | (s-ones)&^s) & highs; found != 0 {
			return n + bits.TrailingZeros64(found)/8
		}
	}
	for n < len(p) && p[n] != '"' && p[n] != '\\' {
		n++
	}
	return n
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

// Members calls f for each member of the JSON object raw, in order. val is a slice of raw. Members
// stops at f's first error.
func Members(raw []byte, f func(key string, val []byte) error) error {
	_, err := members(raw, func(key, p []byte) ([]byte, error) {
		name, err := Unquote(key)
		if err != nil {
			return nil, err
		}
		val, rest, err := cutValue(p)
		if err != nil {
			return nil, err
		}
		return rest, f(name, val)
	})
	return err
}

// members calls f for each member of the JSON object at the start of p, and returns the bytes after
// the object. f gets the quoted key and the bytes from the member's value on, and returns the bytes
// after the value. members stops at f's first error.
func members(p []byte, f func(key, p []byte) (rest []byte, err error)) (rest []byte, err error) {
	p = p[skipSpace(p):]
	if len(p) == 0 || p[0] != '{' {
		return nil, fmt.Errorf("%w: an object was expected", errSyntax)
	}
	p = p[1:]
	for first := true; ; first = false {
		p = p[skipSpace(p):]
		if len(p) == 0 {
			return nil, ErrTruncated
		}
		if p[0] == '}' {
			return p[1:], nil
		}
		if !first {
			if p[0] != ',' {
				return nil, fmt.Errorf("%w: a comma was expected, not %q", errSyntax, p[0])
			}
			p = p[1:]
		}
		key, val, err := cutKey(p)
		if err != nil {
			return nil, err
		}
		if p, err = f(key, val); err != nil {
			return nil, err
		}
	}
}

// Elements calls f for each element of the JSON array raw, in order. val is a slice of raw.
// Elements stops at f's first error.
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
		val, rest, err := cutValue(p[skipSpace(p):])
		if err != nil {
			return err
		}
		if err := f(val); err != nil {
			return err
		}
		p = rest
	}
}

// cutKey splits the quoted key of a member from the start of p, and skips the colon.
func cutKey(p []byte) (key, rest []byte, err error) {
	if key, p, err = cutValue(p[skipSpace(p):]); err != nil {
		return nil, nil, err
	}
	if len(key) == 0 || key[0] != '"' {
		return nil, nil, fmt.Errorf("%w: a string was expected", errSyntax)
	}
	p = p[skipSpace(p):]
	if len(p) == 0 {
		return nil, nil, ErrTruncated
	}
	if p[0] != ':' {
		return nil, nil, fmt.Errorf("%w: a colon was expected, not %q", errSyntax, p[0])
	}
	p = p[1:]
	return key, p[skipSpace(p):], nil
}

// cutValue splits the complete value at the start of p from the rest.
func cutValue(p []byte) (val, rest []byte, err error) {
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

// Unquote returns the text of a JSON string.
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
