package record

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	listsTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_record_lists_total",
		Help: "Lists, by result: complete, stale (older than the recorded one), aborted, too-large (for the cache).",
	}, []string{"result"})
	eventsTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_record_events_total",
		Help: "Watch events, by result: applied, known (recorded already), " +
			"superseded (a later event of the object came before this one was written), " +
			"gap (an earlier event was lost), " +
			"contradiction (the collection is past its version but does not have it), " +
			"unlisted (there is no list to apply it to).",
	}, []string{"result"})
	droppedTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_record_dropped_total",
		Help: "Operations that were not recorded, by reason: " +
			"queue (the store is slower than the network), store (it failed), " +
			"size (a body did not fit into memory).",
	}, []string{"reason"})
	commitsTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_record_commits_total",
		Help: "Transactions that recorded something, by cache.",
	}, []string{"cache"})
	overBudgetTotal = promauto.NewCounter(prometheus.CounterOpts{
		Name: "rockpool_record_over_budget_total",
		Help: "Transactions that cache.write-budget did not allow, written because what waited had no room in memory.",
	})
	evictedTotal = promauto.NewCounter(prometheus.CounterOpts{
		Name: "rockpool_record_evicted_total",
		Help: "Collections and responses that were evicted to stay below cache.max-size.",
	})
	oversizedBytes = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "rockpool_record_oversized_bytes",
		Help: "Size of each collection that does not fit into its cache and cannot be listed offline. " +
			"The limit is cache.max-size for the cache disk, and cache.memory-max-size for memory.",
	}, []string{"cache", "collection"})
	damagedTotal = promauto.NewCounter(prometheus.CounterOpts{
		Name: "rockpool_record_damaged_total",
		Help: "Collections that were dropped because the disk has damaged a payload of theirs.",
	})
	recreatedTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_cache_recreated_total",
		Help: "New cache files created while running, by cache and by the reason: " +
			"corrupt, gone (the old file was removed or replaced).",
	}, []string{"cache", "reason"})
	pendingBytes = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "rockpool_record_pending_bytes",
		Help: "Bytes that wait to be written to a cache or are being written.",
	}, []string{"cache"})
	stoppedState = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "rockpool_record_stopped",
		Help: "1 while a cache cannot be written and nothing is recorded in it.",
	}, []string{"cache"})
	usedBytes = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "rockpool_cache_used_bytes",
		Help: "Bytes of a cache's file that hold data.",
	}, []string{"cache"})
	maxBytes = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "rockpool_cache_max_bytes",
		Help: "The limit of rockpool_cache_used_bytes, which eviction enforces.",
	}, []string{"cache"})
)

// gauges are the gauges of one cache. A sidecar has two caches, on disk and in memory.
type gauges struct {
	pending, stopped, used, max prometheus.Gauge
	commits                     prometheus.Counter
}

func gaugesOf(cache string) gauges {
	return gauges{
		pendingBytes.WithLabelValues(cache), stoppedState.WithLabelValues(cache),
		usedBytes.WithLabelValues(cache), maxBytes.WithLabelValues(cache), commitsTotal.WithLabelValues(cache),
	}
}
