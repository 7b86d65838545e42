package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const watchPath = "/api/v1/namespaces/" + watchNamespace + "/configmaps"

// watches measures the delay of events. Direct watchers and watchers through one sidecar get the
// same events in the same window. The two sidecars take turns.
func (b *bench) watches(ctx context.Context) error {
	last, rounds := 5*time.Second, (b.rounds+2)/3
	if b.short {
		last, rounds = 2*time.Second, 1
	}
	w, err := b.configMaps(ctx)
	if err != nil {
		return err
	}
	for _, shape := range []struct{ streams, rate int }{{20, 100}, {1, 1000}} {
		if err := b.watchRounds(ctx, w, shape.streams, shape.rate, last, rounds); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) watchRounds(ctx context.Context, w *writer, streams, rate int, last time.Duration, rounds int) error {
	p50, p99, later, cpu := map[string]series{}, map[string]series{}, series{}, series{}
	var achieved []float64
	for _, t := range []*target{b.off, b.on} {
		p50[t.name], p99[t.name] = series{}, series{}
	}
	for _, t := range b.turns(rounds) {
		before, err := t.cpu(ctx)
		if err != nil {
			return err
		}
		pair := []*window{{target: b.direct}, {target: t}}
		reached, err := b.window(ctx, w, pair, streams, rate, last, nil)
		if err != nil {
			return err
		}
		after, err := t.cpu(ctx)
		if err != nil {
			return err
		}
		achieved = append(achieved, reached)
		cpu.add(t.name, ms(after-before)/float64(w.sent()*streams))
		for _, side := range pair {
			all := side.latencies(w)
			p50[t.name].add(side.target.name, percentile(all, 50))
			p99[t.name].add(side.target.name, percentile(all, 99))
		}
		later.add(t.name, pair[1].behind(pair[0]))
		if t == b.on {
			if err := b.recordedAll(ctx, "configmaps", watchNamespace, w.version); err != nil {
				return err
			}
		}
	}
	what := fmt.Sprintf("WATCH %d x %d/s (%.0f/s reached)", streams, rate, median(achieved))
	b.report.watched(what, "delivery p50", p50, 1.15)
	b.report.watched(what, "delivery p99", p99, 1.3)
	b.report.difference(what, "an event is later than direct, p50", "ms", later, p50["on"].median("on"))
	b.report.medians(what, "own CPU an event and stream", "ms", cpu)
	return nil
}

// turns are the sidecars that take turns. The one that does not record has no targets: it gets half
// of the rounds.
func (b *bench) turns(rounds int) (all []*target) {
	for round := range rounds {
		if round%2 == 0 {
			all = append(all, b.off)
		}
		all = append(all, b.on)
	}
	return all
}

// watched adds a row in which each sidecar is compared with its own direct watchers.
func (r *report) watched(what, measure string, s map[string]series, bound float64) {
	off, on := s["off"], s["on"]
	direct := append(append([]float64(nil), off["direct"]...), on["direct"]...)
	line := r.add(row{
		Nginx: number(none), NginxRatio: number(none),
		Case: what, Measure: measure, Unit: "ms",
		Direct: number(median(direct)), Off: number(off.median("off")), On: number(on.median("on")),
		OffRatio: number(off.ratio("off", "direct")), OnRatio: number(on.ratio("on", "direct")),
		rounds: series{ofOn: on["on"], ofRatio: on.ratios("on", "direct")},
	})
	line.atMost(bound, ofRatio)
}

// window are the watchers of one target while events are written.
type window struct {
	target  *target
	streams []*stream
}

// crowd measures many watches of one pod, of which each gets few events: how late these are, and
// what a quiet watch takes.
func (b *bench) crowd(ctx context.Context) error {
	const streams, rate = 1000, 2
	last, rounds := 10*time.Second, (b.rounds+2)/3
	if b.short {
		last, rounds = 5*time.Second, 1
	}
	w, err := b.configMaps(ctx)
	if err != nil {
		return err
	}
	p50, p99, each := map[string]series{"on": {}, "off": {}}, map[string]series{"on": {}, "off": {}}, series{}
	for _, t := range b.turns(rounds) {
		idle, err := memoryOf(t.sidecar.pid())
		if err != nil {
			return err
		}
		pair := []*window{{target: b.direct}, {target: t}}
		_, err = b.window(ctx, w, pair, streams, rate, last, func() error {
			open, err := memoryOf(t.sidecar.pid())
			if len(each[t.name]) == 0 { // later ones find the memory of the first
				each.add(t.name, float64(open.anon-idle.anon)/streams/(1<<10))
			}
			return err
		})
		if err != nil {
			return err
		}
		for _, side := range pair {
			all := side.latencies(w)
			p50[t.name].add(side.target.name, percentile(all, 50))
			p99[t.name].add(side.target.name, percentile(all, 99))
		}
	}
	what := fmt.Sprintf("WATCH %d x %d/s", streams, rate)
	b.report.watched(what, "delivery p50", p50, 1.3)
	b.report.watched(what, "delivery p99", p99, 1.3)
	b.report.medians(what, "private memory (RssAnon) of a quiet watch", "KiB", each).atMost(40, ofOn)
	return nil
}

// window opens the streams of each side, calls opened if that is not nil, writes, and waits until
// all streams have all events.
func (b *bench) window(ctx context.Context, w *writer, sides []*window, streams, rate int, last time.Duration, opened func() error) (achieved float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, last*4+time.Minute)
	defer cancel()
	events := int(last.Seconds() * float64(rate))
	w.expect(events)
	reading, stop := context.WithCancel(ctx)
	defer stop()
	readers, reading := errgroup.WithContext(reading)
	for _, side := range sides {
		version, err := side.target.listVersion(ctx, w.path)
		if err != nil {
			return 0, err
		}
		for range streams {
			s := newStream(events, w.start)
			resp, err := side.target.open(reading, side.target.client, w.path+"?watch=true&resourceVersion="+version, asJSON)
			if err != nil {
				return 0, err
			}
			side.streams = append(side.streams, s)
			readers.Go(func() error { return s.read(resp.Body) })
		}
	}
	if opened != nil {
		if err := opened(); err != nil {
			return 0, err
		}
	}
	took, err := w.write(ctx, rate)
	if err != nil {
		return 0, err
	}
	patience, done := context.WithTimeout(ctx, 15*time.Second)
	defer done()
	for _, side := range sides {
		for i, s := range side.streams {
			select {
			case <-s.complete:
			case <-patience.Done():
			case <-reading.Done():
			}
			if lost, twice := s.faults(); lost+twice > 0 {
				b.report.wrong("watch %d of %d at %d/s through %s: %d events lost, %d twice, of %d", i, streams, rate, side.target.name, lost, twice, events)
			}
		}
	}
	stop()
	return float64(events) / took.Seconds(), readers.Wait()
}

// latencies returns the latencies of all streams, in ms.
func (w *window) latencies(by *writer) (all []float64) {
	for _, s := range w.streams {
		for i := range s.arrived {
			if at := s.arrived[i].Load(); at > 0 {
				all = append(all, ms(time.Duration(at-by.at[i])))
			}
		}
	}
	return all
}

// behind returns how much later the same event arrives in w than in other, in ms.
func (w *window) behind(other *window) float64 {
	var all []float64
	for i, s := range w.streams {
		for k := range s.arrived {
			here, there := s.arrived[k].Load(), other.streams[i].arrived[k].Load()
			if here > 0 && there > 0 {
				all = append(all, ms(time.Duration(here-there)))
			}
		}
	}
	if len(all) == 0 {
		return math.NaN()
	}
	return median(all)
}

// listVersion lists, as clients do before they watch, and returns the resourceVersion.
func (t *target) listVersion(ctx context.Context, path string) (string, error) {
	body, err := t.body(ctx, path, asJSON)
	if err != nil {
		return "", err
	}
	var list metav1.PartialObjectMetadataList
	err = json.Unmarshal(body, &list)
	return list.ResourceVersion, err
}
