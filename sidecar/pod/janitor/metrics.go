package janitor

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	rounds  *prometheus.CounterVec
	removed prometheus.Counter
	freed   prometheus.Counter
	slots   *prometheus.GaugeVec
	kept    prometheus.Gauge
	last    prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) metrics {
	with := promauto.With(r) // a nil r registers nothing
	return metrics{
		rounds: with.NewCounterVec(prometheus.CounterOpts{
			Name: "rockpool_janitor_rounds_total",
			Help: "Scans of the whole cache volume, by result: ok, or failed if a path could not be read or removed.",
		}, []string{"result"}),
		removed: with.NewCounter(prometheus.CounterOpts{
			Name: "rockpool_janitor_removed_slots_total",
			Help: "Removed caches of pods.",
		}),
		freed: with.NewCounter(prometheus.CounterOpts{
			Name: "rockpool_janitor_removed_bytes_total",
			Help: "Disk space of the removed caches.",
		}),
		slots: with.NewGaugeVec(prometheus.GaugeOpts{
			Name: "rockpool_janitor_slots",
			Help: "Remaining caches of pods: recently used (young), or old but held by a running pod (held).",
		}, []string{"state"}),
		kept: with.NewGauge(prometheus.GaugeOpts{
			Name: "rockpool_janitor_kept_bytes",
			Help: "Disk space of the remaining caches.",
		}),
		last: with.NewGauge(prometheus.GaugeOpts{
			Name: "rockpool_janitor_last_round_timestamp_seconds",
			Help: "End of the last scan, in Unix time.",
		}),
	}
}

func (m metrics) observe(r Round, err error, now time.Time, dryRun bool) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	m.rounds.WithLabelValues(result).Inc()
	if !dryRun {
		m.removed.Add(float64(r.Removed))
		m.freed.Add(float64(r.Freed))
	}
	m.slots.WithLabelValues("young").Set(float64(r.Young))
	m.slots.WithLabelValues("held").Set(float64(r.Held))
	m.kept.Set(float64(r.Kept))
	m.last.Set(float64(now.Unix()))
}
