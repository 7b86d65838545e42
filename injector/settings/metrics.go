package settings

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	valid = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "rockpool_injector_config_valid",
		Help: "1 when the ConfigMap as it is now is in effect, 0 when something in it is wrong and what was in effect before stays.",
	})

	readings = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_injector_config_changes_total",
		Help: "Changes of the ConfigMap, by result: applied, refused.",
	}, []string{"result"})

	watchFailures = promauto.NewCounter(prometheus.CounterOpts{
		Name: "rockpool_injector_config_watch_failures_total",
		Help: "Times that the ConfigMap could not be watched.",
	})
)
