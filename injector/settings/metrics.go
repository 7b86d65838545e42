package settings

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	valid = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "rockpool_injector_config_valid",
		Help: "1 if the present ConfigMap is in effect, 0 if it is invalid and the previous settings stay in effect.",
	})

	readings = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_injector_config_changes_total",
		Help: "Changes of the ConfigMap, by result: applied, refused.",
	}, []string{"result"})

	watchFailures = promauto.NewCounter(prometheus.CounterOpts{
		Name: "rockpool_injector_config_watch_failures_total",
		Help: "Failed watches of the ConfigMap.",
	})
)
