package meter

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

var linkDesc = prometheus.NewDesc("rockpool_link_bytes_total",
	"Bytes on the link to the API server, as TCP carries them, by direction (received, sent), User-Agent name, verb and resource of the body that they belong to. "+
		"All other bytes (headers, frames, PINGs, TLS, requests for /readyz) have the User-Agent \"protocol\". Bodies may be compressed.",
	[]string{"direction", "agent", "verb", "resource"}, nil)

// linkLabels are whom bytes belong to.
type linkLabels struct{ agent, verb, resource string }

// direction counts bytes of both directions.
type direction struct{ received, sent atomic.Int64 }

// linkBytes counts the bytes on the link.
type linkBytes struct {
	direction // all of them

	mu     sync.Mutex
	bodies map[linkLabels]*direction
	// rest is of the bytes that belong to no body.
	rest struct{ received, sent rest }
}

// rest estimates the bytes that belong to no body: all of them, without those that were read as
// bodies. Some of all may be a body whose reader has not come to it yet, and those of a large list
// would never be taken back from a counter. So the lower one of the last two differences counts,
// which is late by one scrape.
type rest struct{ last, told int64 }

func (r *rest) next(difference int64) int64 {
	r.told = max(r.told, min(r.last, difference))
	r.last = difference
	return r.told
}

// of returns the counters of labels.
func (l *linkBytes) of(labels linkLabels) *direction {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bodies == nil {
		l.bodies = map[linkLabels]*direction{}
	}
	if l.bodies[labels] == nil {
		l.bodies[labels] = &direction{}
	}
	return l.bodies[labels]
}

func (l *linkBytes) collect(out chan<- prometheus.Metric) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var bodies struct{ received, sent int64 }
	tell := func(direction string, n int64, labels linkLabels) {
		out <- prometheus.MustNewConstMetric(linkDesc, prometheus.CounterValue, float64(n), direction, labels.agent, labels.verb, labels.resource)
	}
	for labels, d := range l.bodies {
		received, sent := d.received.Load(), d.sent.Load()
		bodies.received += received
		bodies.sent += sent
		tell("received", received, labels)
		tell("sent", sent, labels)
	}
	tell("received", l.rest.received.next(l.received.Load()-bodies.received), linkLabels{agent: protocol})
	tell("sent", l.rest.sent.next(l.sent.Load()-bodies.sent), linkLabels{agent: protocol})
}
