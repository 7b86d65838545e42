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
		Help: "Watch events, by result: applied, known (recorded before), superseded (a later event of the object came before it was written), gap (an event before it was lost), contradiction (its version is known and it is not), unlisted (no list to apply it to).",
	}, []string{"result"})
	droppedTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_record_dropped_total",
		Help: "Operations that were not recorded, by reason: queue (the store is slower than the network), store (it failed).",
	}, []string{"reason"})
	evictedTotal = promauto.NewCounter(prometheus.CounterOpts{
		Name: "rockpool_record_evicted_total",
		Help: "Collections and responses that were deleted to stay below cache.max-size.",
	})
	recreatedTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_cache_recreated_total",
		Help: "Times that a new file was begun while running, by cache and by what was wrong with the old one: corrupt, gone (removed or replaced).",
	}, []string{"cache", "reason"})
	pendingBytes = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "rockpool_record_pending_bytes",
		Help: "Bytes that wait to be written to a cache, or are being written.",
	}, []string{"cache"})
	stoppedState = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "rockpool_record_stopped",
		Help: "1 while nothing is recorded in a cache because it cannot be written.",
	}, []string{"cache"})
	usedBytes = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "rockpool_cache_used_bytes",
		Help: "Bytes of a cache's file that hold data.",
	}, []string{"cache"})
	maxBytes = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "rockpool_cache_max_bytes",
		Help: "The bound of rockpool_cache_used_bytes, which eviction keeps.",
	}, []string{"cache"})
)

// gauges are those of one cache: a sidecar has two, on the disk and in memory.
type gauges struct{ pending, stopped, used, max prometheus.Gauge }

func gaugesOf(cache string) gauges {
	return gauges{pendingBytes.WithLabelValues(cache), stoppedState.WithLabelValues(cache), usedBytes.WithLabelValues(cache), maxBytes.WithLabelValues(cache)}
}
