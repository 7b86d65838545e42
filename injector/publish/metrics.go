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

	leading = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "rockpool_injector_publishing",
		Help: "1 in the replica that writes a change of the settings to all namespaces, 0 in the others.",
	})

	writes = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_injector_configmap_writes_total",
		Help: "Writes of such a ConfigMap, by result: applied, failed.",
	}, []string{"result"})
)
