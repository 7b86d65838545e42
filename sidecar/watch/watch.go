package watch

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/cache"
)

// watch is the body of one client's watch. Its Read goes through the phases. Close may be
// called while a Read waits, and ends it.
type watch struct {
	*Watches
	Request
	// ctx ends when the body is closed, or the client's request ends.
	ctx      context.Context
	cancel   context.CancelFunc
	deadline time.Time // by the client's timeoutSeconds; zero: none

	form   request.Form // of the objects, unless the client would rather have Tables
	accept string       // asks the API server for form; empty: as the client has asked
	events cache.Events
	// version is that of the last event that the client has. It counts once served is true.
	version string
	served  bool // from here on the client has the initial state

	closed  sync.Once  // tells Options.Closed
	reading sync.Mutex // held by Read, and by Close when it tidies up
	phase   phase
	counted string // its label in watchCount; empty: none
	out     []byte // frames for the client
	off     int    // of out, what the client has
}

var _ io.ReadCloser = (*watch)(nil)

// batch is about how many bytes of changes a watch makes for its client at once.
const batch = 64 << 10

// Read gives whole frames. A frame that broke off with the link is left out; the next connection
// sends it again.
func (w *watch) Read(p []byte) (int, error) {
	w.reading.Lock()
	defer w.reading.Unlock()
	for w.off == len(w.out) {
		w.off, w.out = 0, wire.Reuse(w.out)
		if end, ok := w.phase.(ended); ok {
			return 0, end.err
		}
		w.phase = w.phase.step(w)
		w.count()
	}
	n := copy(p, w.out[w.off:])
	w.off += n
	return n, nil
}

// Close ends the watch.
func (w *watch) Close() error {
	w.cancel() // ends a Read that waits
	w.reading.Lock()
	defer w.reading.Unlock()
	w.phase.leave(w)
	w.phase = ended{context.Canceled}
	w.count()
	w.events.Close()
	if w.Closed != nil {
		w.closed.Do(func() { w.Closed(w.Request) })
	}
	return nil
}

// over is how the watch ends when its lifetime has ended.
func (w *watch) over() phase {
	if err := w.ctx.Err(); err != nil {
		return ended{err}
	}
	return ended{io.EOF} // the client's timeoutSeconds are over
}

var watchCount = promauto.NewGaugeVec(prometheus.GaugeOpts{
	Name: "rockpool_watches",
	Help: "Watches of the pod's programs, by state: open (events come from the API server, or are replayed), waiting (for the link, and for their turn after it is back).",
}, []string{"state"})

// count moves the watch to the label of its phase.
func (w *watch) count() {
	label := "open"
	switch w.phase.(type) {
	case *waiting:
		label = "waiting"
	case ended:
		label = ""
	}
	if label == w.counted {
		return
	}
	if w.counted != "" {
		watchCount.WithLabelValues(w.counted).Dec()
	}
	if label != "" {
		watchCount.WithLabelValues(label).Inc()
	}
	w.counted = label
	w.opened.set(w, label)
}
