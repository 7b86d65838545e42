package wire

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

// splitLarge splits a body that arrives in chunks, and returns how much processor time that takes.
func splitLarge(tb testing.TB, body []byte, split func(found func([]byte) error) interface{ Write([]byte) (int, error) }) time.Duration {
	tb.Helper()
	found := 0
	s := split(func([]byte) error { found++; return nil })
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := processorTime(tb)
	for part := range slices.Chunk(body, chunk) {
		if _, err := s.Write(part); err != nil {
			tb.Fatal(err)
		}
	}
	took := processorTime(tb) - began
	if found != 1 {
		tb.Fatalf("found %d objects", found)
	}
	return took
}

// processorTime is what this thread has used. Unlike the time that passes, it hardly depends on
// what else the machine does.
func processorTime(tb testing.TB) time.Duration {
	tb.Helper()
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &used); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// A large object is not looked at again with each of its thousand parts. The program waits for
// that: its body is split on its way. Eight times the object then takes eight times as long, and
// would take sixty-four times as long otherwise.
func TestALargeObjectIsLookedAtOnce(t *testing.T) {
	const large = 15000 << 10
	smaller := largeBodies(large / 8)
	for name, tt := range largeBodies(large) {
		best := func(body []byte) time.Duration {
			took := splitLarge(t, body, tt.split)
			for range 4 {
				took = min(took, splitLarge(t, body, tt.split))
			}
			return took
		}
		if eighth, whole := best(smaller[name].body), best(tt.body); whole > 24*eighth+100*time.Millisecond {
			t.Errorf("%s: %v for an eighth, and %v for the whole", name, eighth, whole)
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
					splitLarge(b, tt.body, tt.split)
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
