package wire

import (
	"bytes"
	"fmt"
	"slices"
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

// splitLarge splits a body that arrives in parts of a size, and returns how long that takes.
func splitLarge(tb testing.TB, body []byte, size int, split func(found func([]byte) error) interface{ Write([]byte) (int, error) }) time.Duration {
	tb.Helper()
	found := 0
	s := split(func([]byte) error { found++; return nil })
	began := time.Now()
	for part := range slices.Chunk(body, size) {
		if _, err := s.Write(part); err != nil {
			tb.Fatal(err)
		}
	}
	took := time.Since(began)
	if found != 1 {
		tb.Fatalf("found %d objects", found)
	}
	return took
}

// A large object is not looked at again with each of its thousand parts. The program waits for that:
// its body is split on its way. To look at all of it each time would take hundreds of times as long as
// to split the same bytes in one part, on any machine.
func TestALargeObjectIsLookedAtOnce(t *testing.T) {
	for name, tt := range largeBodies(15000 << 10) {
		best := func(size int) time.Duration {
			took := splitLarge(t, tt.body, size, tt.split)
			for range 4 {
				took = min(took, splitLarge(t, tt.body, size, tt.split))
			}
			return took
		}
		if whole, parts := best(len(tt.body)), best(chunk); parts > 50*whole+time.Second/2 {
			t.Errorf("%s: %v, and %v in parts", name, whole, parts)
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
		if n := held(); n > largeBuffer || !s.Partial() {
			t.Errorf("%s: after a large frame and the start of another, %d bytes are kept", name, n)
		}
		write(small[8:])
		medium := largeBodies(20 << 10)[body].body
		write(medium[:10<<10])
		write(medium[10<<10:])
		write(small)
		if frames != 4 || s.Partial() {
			t.Errorf("%s: %d frames", name, frames)
		}
		if n := held(); n > smallBuffer {
			t.Errorf("%s: after a small frame, %d bytes are kept", name, n)
		}
	}
}

func BenchmarkALargeObject(b *testing.B) {
	for _, mebibytes := range []int{1, 4, 15} {
		for name, tt := range largeBodies(mebibytes << 20) {
			b.Run(fmt.Sprintf("%d MiB in %s", mebibytes, name), func(b *testing.B) {
				b.SetBytes(int64(len(tt.body)))
				for b.Loop() {
					splitLarge(b, tt.body, chunk, tt.split)
				}
			})
		}
	}
}

func TestABufferIsReusedUnlessItIsTooLargeForWhatItHolds(t *testing.T) {
	for name, one := range map[string]struct{ used, size, want int }{
		"small and empty":       {0, smallBuffer, smallBuffer},
		"medium and half full":  {10 << 10, 20 << 10, 20 << 10},
		"medium and less full":  {10<<10 - 1, 20 << 10, 0},
		"large and full":        {largeBuffer, largeBuffer, largeBuffer},
		"larger than is kept":   {largeBuffer + 1, largeBuffer + 1, 0},
		"none, as at the start": {},
	} {
		got := Reuse(make([]byte, one.used, one.size))
		if len(got) != 0 || cap(got) != one.want {
			t.Errorf("%s: %d bytes of %d, want none of %d", name, len(got), cap(got), one.want)
		}
	}
}
