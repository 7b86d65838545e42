package replay

import (
	"bytes"
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	"rockpool.dev/store"
)

// BenchmarkList answers a LIST of 2,000 pods of 3.4 KiB. cpu-ms is all of the CPU time.
func BenchmarkList(b *testing.B) {
	const objects, size = 2000, 3400
	for _, encoding := range []store.Encoding{store.JSONBare, store.Protobuf} {
		b.Run(string(encoding), func(b *testing.B) {
			h := newHarness(b)
			s, accept := scope("/api/v1/namespaces/shop/pods"), "application/json"
			if encoding == store.Protobuf {
				s.MediaType = "application/vnd.kubernetes.protobuf"
				accept = s.MediaType
			}
			snap := store.NewSnapshot(s, h.asked())
			h.update(func(tx *store.Tx) error {
				for i := range objects {
					o := bare("shop", fmt.Sprintf("web-7c5ddbdf54-%05d", i), i)
					o.Encoding, o.Payload = encoding, append(o.Payload, bytes.Repeat([]byte{' '}, size)...)
					if err := snap.Add(tx, o); err != nil {
						return err
					}
				}
				return snap.Commit(tx, store.CollectionMeta{Kind: "Pod", APIVersion: "v1", ResourceVersion: "9000", Envelope: `{"kind":"PodList","apiVersion":"v1","metadata":{}}`})
			})
			buffer := make([]byte, 32<<10)
			b.ReportAllocs()
			before := cpuTime(b)
			for b.Loop() {
				resp, err := h.Answer(b.Context(), ask("/api/v1/namespaces/shop/pods", accept))
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{resp.Body}, buffer)
				if err != nil || n < objects*size {
					b.Fatal(n, err)
				}
			}
			b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/1e3/float64(b.N), "cpu-ms")
		})
	}
}

func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// Of a large list only payloads are read: the driver allocates each column of a row.
func TestALargeListTakesFewAllocations(t *testing.T) {
	const objects, most = 500, 12
	h := newHarness(t)
	all := make([]store.Object, objects)
	for i := range all {
		all[i] = bare("shop", fmt.Sprintf("web-%05d", i), i+1)
	}
	h.record("/api/v1/namespaces/shop/pods", 9000, all...)
	got := testing.AllocsPerRun(5, func() {
		resp, err := h.Answer(t.Context(), ask("/api/v1/namespaces/shop/pods", ""))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
	})
	if got > most*objects {
		t.Errorf("%.1f allocations an object, want %d at most", got/objects, most)
	}
}
