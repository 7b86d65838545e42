package webhook

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	reviews = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_injector_reviews_total",
		Help: "Reviews, by outcome (injected, unchanged, skipped, refused, failed) and, for skipped and refused pods, by reason. " +
			"A pod may have two reviews if other admission plugins change it.",
	}, []string{"outcome", "reason"})

	notices = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_injector_notices_total",
		Help: "Notices about injected pods, for example about containers that keep talking to the API server directly, by reason.",
	}, []string{"reason"})

	failedLookups = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_injector_failed_lookups_total",
		Help: "Failed lookups of a pod's namespace or node, by what was looked up. The pod is injected without the facts.",
	}, []string{"what"})

	malformed = promauto.NewCounter(prometheus.CounterOpts{
		Name: "rockpool_injector_malformed_requests_total",
		Help: "Requests without an AdmissionReview about the creation of a pod.",
	})

	seconds = promauto.NewHistogram(prometheus.HistogramOpts{
		Name:    "rockpool_injector_review_duration_seconds",
		Help:    "Time from the headers of a review until its answer is ready to be written.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 12),
	})
)
