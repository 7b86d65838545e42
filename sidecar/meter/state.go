package meter

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rockpool.dev/sidecar/cache"
	"rockpool.dev/store"
)

// Link is what State needs of the link.
type Link interface {
	// Offline is how long the link was down since the start.
	Offline() time.Duration
	// LastOnline is when the link was online last: now, if it is; zero: not yet.
	LastOnline() time.Time
}

// State tells the state of the link and of the recordings when it is asked. It is a
// prometheus.Collector.
type State struct {
	Link Link
	// Caches are asked for their lists.
	Caches []*cache.Cache
	// Version is that of the program.
	Version string
	// Started is when the sidecar has started.
	Started time.Time
	// Now is time.Now, except in tests.
	Now func() time.Time

	mu sync.Mutex
	// kept are the lists that a watch has kept in step with the API server, by scope, and until
	// when. Their own times are those of their last event.
	kept map[store.Scope]time.Time
}

var _ prometheus.Collector = (*State)(nil)

const (
	// patience bounds the questions to the caches for one scrape.
	patience = 2 * time.Second
	// maxAges bounds the series of ages.
	maxAges = 200
)

var (
	buildDesc   = prometheus.NewDesc("rockpool_build_info", "1, with the version of the program.", []string{"component", "version"}, nil)
	offlineDesc = prometheus.NewDesc("rockpool_link_offline_seconds_total", "How long the link to the API server was down since the start of the sidecar.", nil, nil)
	writtenDesc = prometheus.NewDesc("rockpool_disk_written_bytes_total", "Bytes that the sidecar has had written to disks: the wear of a flash card, without that of its file system.", nil, nil)
	ageDesc     = prometheus.NewDesc("rockpool_collection_age_seconds",
		"Age of the oldest answer that programs would get from recorded lists while the link is down, by resource and namespace of the objects (empty: all). 0 while a watch keeps the list in step.",
		[]string{"resource", "object_namespace"}, nil)
	onlineDesc = prometheus.NewDesc("rockpool_link_last_online_timestamp_seconds",
		"When the link was online last, in seconds since 1970: now, if it is. Before the first time, when the sidecar has started.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *State) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{buildDesc, offlineDesc, onlineDesc, writtenDesc, ageDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (s *State) Collect(out chan<- prometheus.Metric) {
	out <- prometheus.MustNewConstMetric(buildDesc, prometheus.GaugeValue, 1, "sidecar", s.Version)
	out <- prometheus.MustNewConstMetric(offlineDesc, prometheus.CounterValue, s.Link.Offline().Seconds())
	online := latest(s.Started, s.Link.LastOnline())
	out <- prometheus.MustNewConstMetric(onlineDesc, prometheus.GaugeValue, float64(online.UnixMilli())/1000)
	if n, err := Written(); err == nil {
		out <- prometheus.MustNewConstMetric(writtenDesc, prometheus.CounterValue, float64(n))
	}
	ages, err := s.ages()
	if err != nil {
		out <- prometheus.NewInvalidMetric(ageDesc, err)
		return
	}
	for of, age := range ages {
		out <- prometheus.MustNewConstMetric(ageDesc, prometheus.GaugeValue, age.Seconds(), of.resource, of.namespace)
	}
}

// Written is how many bytes this process has had written to disks. It counts pages when they become
// dirty, and not those of file systems in memory.
func Written() (int64, error) {
	raw, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0, err
	}
	return written(raw)
}

// written reads how many bytes a process has had written to disks, from /proc/PID/io (proc(5)).
func written(accounting []byte) (n int64, err error) {
	lines := bufio.NewScanner(bytes.NewReader(accounting))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "write_bytes: "); ok {
			return strconv.ParseInt(value, 10, 64)
		}
	}
	return 0, errNoWrites
}

var errNoWrites = errors.New("/proc/self/io has no write_bytes")

// aged is what an age is of.
type aged struct{ resource, namespace string }

// ages are those of the recorded lists, the largest for each resource and namespace.
func (s *State) ages() (map[aged]time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	now, online := s.Now(), s.Link.LastOnline()
	isOnline := !online.Before(now)
	kept := map[store.Scope]time.Time{}
	ages := map[aged]time.Duration{}
	for _, c := range s.Caches {
		lists, err := c.Lists(ctx)
		if err != nil {
			return nil, err
		}
		for _, l := range lists {
			synced := l.SyncedAt
			before, ok := s.kept[l.Scope]
			switch {
			case l.Watched && isOnline:
				synced, kept[l.Scope] = now, now
			case ok && l.Watched:
				synced = latest(synced, before, online)
				kept[l.Scope] = synced
			case ok:
				synced = latest(synced, before)
				kept[l.Scope] = synced
			}
			resource := l.Resource
			if l.Group != "" {
				resource += "." + l.Group
			}
			of := aged{resource, l.Namespace}
			ages[of] = max(ages[of], now.Sub(synced))
		}
	}
	s.kept = kept
	return oldest(ages), nil
}

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

// oldest keeps the largest ages.
func oldest(ages map[aged]time.Duration) map[aged]time.Duration {
	if len(ages) <= maxAges {
		return ages
	}
	all := make([]aged, 0, len(ages))
	for of := range ages {
		all = append(all, of)
	}
	slices.SortFunc(all, func(a, b aged) int {
		return cmp.Or(cmp.Compare(ages[b], ages[a]), cmp.Compare(a.resource, b.resource), cmp.Compare(a.namespace, b.namespace))
	})
	for _, of := range all[maxAges:] {
		delete(ages, of)
	}
	return ages
}
