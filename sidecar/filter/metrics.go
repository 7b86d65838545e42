package filter

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	hiddenObjects = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_filter_objects_hidden_total",
		Help: "Objects that filters left out of answers and watches, by resource.",
	}, []string{"resource"})

	changedObjects = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_filter_objects_changed_total",
		Help: "Objects that filters changed in answers and watches, by resource.",
	}, []string{"resource"})

	failures = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_filter_failures_total",
		Help: "Objects that a filter failed on and passed on unchanged, by filter and resource.",
	}, []string{"filter", "resource"})

	corrections = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_filter_corrections_total",
		Help: "Changes of settings, Services or nodes that open watches were corrected for, by result: corrected, deferred (the objects could not be read; tried again later), relist (the client was sent to list again).",
	}, []string{"result"})

	unknownPast = promauto.NewCounter(prometheus.CounterOpts{
		Name: "rockpool_filter_relists_total",
		Help: "Watches refused with 410 because nobody remembers how the client's list was filtered, for example after a restart of the sidecar.",
	})

	refusedReads = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "rockpool_filter_reads_refused",
		Help: "Lists that filters go by and that the API server refuses to the client's account at present, by resource. What filters cannot decide is kept.",
	}, []string{"resource"})

	membershipKnown = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "rockpool_filter_membership_known",
		Help: "1 if this node's pool or zone is known, 0 if not and its endpoints are kept, by kind: node, pool, zone, pool-nodes, zone-nodes.",
	}, []string{"kind"})
)
