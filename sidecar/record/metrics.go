package record

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	listsTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_record_lists_total",
		Help: "Lists that were recorded, by result: complete, stale (older than what is there), aborted.",
	}, []string{"result"})
	eventsTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_record_events_total",
		Help: "Watch events, by result: applied, known (recorded before), gap (an event before it was lost), contradiction (its version is known and it is not), unlisted (no list to apply it to).",
	}, []string{"result"})
	droppedTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_record_dropped_total",
		Help: "Operations that were not recorded, by reason: queue (the store is slower than the network), store (it failed).",
	}, []string{"reason"})
	evictedTotal = promauto.NewCounter(prometheus.CounterOpts{
		Name: "rockpool_record_evicted_total",
		Help: "Collections and responses that were deleted to stay below cache.max-size.",
	})
	pendingBytes = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "rockpool_record_pending_bytes",
		Help: "Bytes that wait to be written to the store.",
	})
)
