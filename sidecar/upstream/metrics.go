package upstream

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	transitions = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_link_transitions_total",
		Help: "Changes of the state of the link to the API server, by the state entered.",
	}, []string{"to"})
	stateGauge = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "rockpool_link_state",
		Help: "State of the link to the API server: 0 offline, 2 suspect, 3 online.",
	})
)

// gaugeValue orders the states from worst to best.
var gaugeValue = map[State]float64{Offline: 0, Suspect: 2, Online: 3}
