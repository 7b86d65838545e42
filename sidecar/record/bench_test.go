package record

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// podList is a list of n pods of about 3 KiB in JSON.
func podList(b *testing.B, format wire.Format, n int) []byte {
	b.Helper()
	list := corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "200000"}}
	for i := range n {
		app := fmt.Sprintf("app-%02d", i/50) // in the order of the API server
		list.Items = append(list.Items, corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "shop", Name: fmt.Sprintf("%s-%05d", app, i), ResourceVersion: fmt.Sprint(100000 + i),
				UID:    types.UID(fmt.Sprintf("7d8a1b3c-0000-4000-8000-%012d", i)),
				Labels: map[string]string{"app.kubernetes.io/name": app, "app.kubernetes.io/part-of": "bench", "tier": "edge"},
			},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "registry.example.com/shop/" + app + ":v1", Args: []string{strings.Repeat("x", 2000)}}}},
		})
	}
	var raw []byte
	var err error
	if format == wire.Protobuf {
		if raw, err = list.Marshal(); err == nil {
			raw = format.AppendTyped(nil, "PodList", "v1", raw)
		}
	} else {
		list.Kind, list.APIVersion = "PodList", "v1"
		raw, err = json.Marshal(list)
	}
	if err != nil {
		b.Fatal(err)
	}
	return raw
}

// BenchmarkList records lists. client-ms is how long the client reads, with the writer beside it;
// cpu-ms is all of the CPU time, that of the writer too; disk-KB is what is written.
func BenchmarkList(b *testing.B) {
	const objects = 2000
	for _, format := range []wire.Format{wire.JSON, wire.Protobuf} {
		name := strings.ToLower(strings.TrimPrefix(format.MediaType(), "application/"))
		body := podList(b, format, objects)
		for _, first := range []bool{true, false} {
			when := "unchanged"
			if first {
				when = "first"
			}
			b.Run(name+" "+when, func(b *testing.B) {
				h := newHarnessWithQuota(b, 0, 1<<30)
				read := func(selector int) time.Duration {
					url := "/api/v1/namespaces/shop/pods"
					if first {
						url += fmt.Sprint("?labelSelector=round!%3D", selector%20)
					}
					resp := &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body))}
					begin := time.Now()
					teed := h.teeList(h.source(url), format, resp)
					if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{teed}, make([]byte, 16<<10)); err != nil {
						b.Fatal(err)
					}
					took := time.Since(begin)
					h.flush()
					return took
				}
				if !first {
					read(0)
				}
				b.ReportAllocs()
				var client time.Duration
				n, cpu, disk := 0, cpuTime(b), written(b)
				for b.Loop() {
					client += read(n)
					if n++; first && n%20 == 0 {
						b.StopTimer()
						before, wrote := cpuTime(b), written(b)
						h.forgetLists()
						cpu, disk = cpu+cpuTime(b)-before, disk+written(b)-wrote
						b.StartTimer()
					}
				}
				b.ReportMetric(float64(client.Microseconds())/1e3/float64(n), "client-ms")
				b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/1e3/float64(n), "cpu-ms")
				b.ReportMetric(float64(written(b)-disk)/1e3/float64(n), "disk-KB")
			})
		}
	}
}

func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// forgetLists deletes the lists of pods.
func (h *harness) forgetLists() {
	h.t.Helper()
	err := h.db.Update(h.t.Context(), func(tx *store.Tx) error {
		all, err := tx.Complete(store.Resource{Principal: who, Resource: "pods"}, "")
		for i := 0; err == nil && i < len(all); i++ {
			err = tx.Forget(all[i])
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
}
