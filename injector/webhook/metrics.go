package webhook

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	reviews = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_injector_reviews_total",
		Help: "Reviews (a pod may take two, when other admission plugins change it), by outcome (injected, unchanged, skipped, refused, failed) and, for skipped and refused ones, reason.",
	}, []string{"outcome", "reason"})

	notices = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_injector_notices_total",
		Help: "What there was to say about otherwise injected pods, such as of containers that keep talking to the API server directly, by reason.",
	}, []string{"reason"})

	failedLookups = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_injector_failed_lookups_total",
		Help: "Namespaces and nodes of which nothing could be learned, so that a pod was injected without; by what it was.",
	}, []string{"what"})

	malformed = promauto.NewCounter(prometheus.CounterOpts{
		Name: "rockpool_injector_malformed_requests_total",
		Help: "Requests that held no AdmissionReview about the creation of a pod.",
	})

	seconds = promauto.NewHistogram(prometheus.HistogramOpts{
		Name:    "rockpool_injector_review_duration_seconds",
		Help:    "Time from the headers of a review to its answer, without writing it.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 12),
	})
)
