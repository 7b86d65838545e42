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

	leftAlone = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_injector_containers_left_alone_total",
		Help: "Containers of otherwise injected pods that keep talking to the API server directly, by reason.",
	}, []string{"reason"})

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
