package publish

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	published = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "rockpool_injector_published_configmaps",
		Help: "Namespaces that have a ConfigMap with the settings of running sidecars.",
	})

	writes = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_injector_configmap_writes_total",
		Help: "Writes of such a ConfigMap, by result: applied, failed.",
	}, []string{"result"})
)
