package wire

import (
	"bytes"
	"fmt"
	"testing"
	"time"
)

// chunk is how much of a body one read brings: a frame of HTTP/2.
const chunk = 16 << 10

// largeBodies are bodies with one object of the given size, and what splits them.
func largeBodies(size int) map[string]struct {
	body  []byte
	split func(found func([]byte) error) interface{ Write([]byte) (int, error) }
} {
	type splitter = interface{ Write([]byte) (int, error) }
	data := bytes.Repeat([]byte("x"), size)
	jsonObject := fmt.Appendf(nil, `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"a"},"data":"%s"}`, data)
	item := appendField(appendField(nil, objectMetadata, appendField(nil, metaName, []byte("a"))), 2, data)
	list := AppendListHead(nil, "SecretList", "v1", "1", ItemSize(len(item)))
	return map[string]struct {
		body  []byte
		split func(found func([]byte) error) splitter
	}{
		"a JSON list":      {fmt.Appendf(nil, `{"items":[%s]}`, jsonObject), func(f func([]byte) error) splitter { return JSON.NewList(f) }},
		"a JSON watch":     {JSON.AppendEvent(nil, Added, jsonObject), func(f func([]byte) error) splitter { return JSON.NewFrames(f) }},
		"a protobuf list":  {AppendEnvelopeEnd(AppendItem(list, item)), func(f func([]byte) error) splitter { return Protobuf.NewList(f) }},
		"a protobuf watch": {Protobuf.AppendEvent(nil, Added, Protobuf.AppendTyped(nil, "Secret", "v1", item)), func(f func([]byte) error) splitter { return Protobuf.NewFrames(f) }},
	}
}

// splitLarge splits a body that arrives in chunks, and returns how long that takes.
func splitLarge(tb testing.TB, body []byte, split func(found func([]byte) error) interface{ Write([]byte) (int, error) }) time.Duration {
	tb.Helper()
	found := 0
	s := split(func([]byte) error { found++; return nil })
	began := time.Now()
	for rest := body; len(rest) > 0; {
		n := min(chunk, len(rest))
		if _, err := s.Write(rest[:n]); err != nil {
			tb.Fatal(err)
		}
		rest = rest[n:]
	}
	took := time.Since(began)
	if found != 1 {
		tb.Fatalf("found %d objects", found)
	}
	return took
}

// An object ten times as large takes ten times as long. The program waits for that: its body is
// split on its way.
func TestALargeObjectTakesTimeInProportion(t *testing.T) {
	small, large := largeBodies(1500<<10), largeBodies(15000<<10)
	for name := range small {
		best := func(body []byte) time.Duration {
			took := splitLarge(t, body, small[name].split)
			for range 4 {
				took = min(took, splitLarge(t, body, small[name].split))
			}
			return took
		}
		if a, b := best(small[name].body), best(large[name].body); b > 50*a {
			t.Errorf("%s: %v, and %v with an object of ten times the size", name, a, b)
		}
	}
}

func TestAQuietWatchKeepsNoLargeBuffer(t *testing.T) {
	for name, format := range map[string]Format{"JSON": JSON, "protobuf": Protobuf} {
		body := "a " + name + " watch"
		large, small := largeBodies(1 << 20)[body].body, largeBodies(10)[body].body
		frames := 0
		s := format.NewFrames(func([]byte) error { frames++; return nil })
		held := func() int {
			if f, ok := s.(*protobufFrames); ok {
				return cap(f.in.unfinished)
			}
			return cap(s.(*Frames).buf)
		}
		write := func(p []byte) {
			t.Helper()
			if _, err := s.Write(p); err != nil {
				t.Fatal(err)
			}
		}
		for _, part := range [][]byte{large[:1000], large[1000 : 1<<19], append(bytes.Clone(large[1<<19:]), small[:8]...)} {
			write(part)
		}
		if n := held(); n > keptBuffer || !s.Partial() {
			t.Errorf("%s: after a large frame and the start of another, %d bytes are kept", name, n)
		}
		write(small[8:])
		if frames != 2 || s.Partial() {
			t.Errorf("%s: %d frames", name, frames)
		}
	}
}

func BenchmarkALargeObject(b *testing.B) {
	for _, mebibytes := range []int{1, 4, 15} {
		for name, tt := range largeBodies(mebibytes << 20) {
			b.Run(fmt.Sprintf("%d MiB in %s", mebibytes, name), func(b *testing.B) {
				b.SetBytes(int64(len(tt.body)))
				for b.Loop() {
					splitLarge(b, tt.body, tt.split)
				}
			})
		}
	}
}
