package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"rockpool.dev/tests/bed/link"
)

// thinShape is a link of 1 Mbit/s, and fillShape one that a busy disk keeps up with.
var (
	thinShape = link.Shape{Rate: 1_000_000 / 8, Queue: 64 << 10, RoundTrip: 100 * time.Millisecond}
	fillShape = link.Shape{Rate: 8_000_000, Queue: 1 << 20, RoundTrip: time.Millisecond}
)

// saved measures what a program costs a thin link that starts again after a power cut, with
// online.reads=save: 20 informers of client-go with its defaults on the same 2,000 pods, of which 1
// % have changed. Each has a selector of its own, so that they share nothing. Directly, all of them
// together would take a quarter of an hour: the time is that of one of them, times 20, for the link
// is full all the while.
func (b *bench) saved(ctx context.Context) error {
	if err := b.pods(ctx, someNamespace, someObjects); err != nil {
		return err
	}
	klog.SetLogger(logr.Discard()) // informers log each failure
	wan, err := link.New(b.plane.Address())
	if err != nil {
		return err
	}
	defer wan.Close()
	wan.SetShape(fillShape, fillShape)
	fill, _, err := b.informers(ctx, "on", wan, fleetSize, readsSave)
	if err != nil {
		return err
	}
	progress("saved: filled with %.0f MB", fill/1e6)
	// That link was faster. One informer shows that it is thin by now.
	wan.SetShape(thinShape, thinShape)
	if _, _, err := b.informers(ctx, "on", wan, 1, readsSave); err != nil {
		return err
	}
	if err := b.writer.change(ctx); err != nil {
		return err
	}
	used, took := series{}, series{}
	bytes, last, err := b.informers(ctx, "on", wan, fleetSize, readsSave)
	if err != nil {
		return err
	}
	used.add("on", bytes/1e3)
	took.add("on", last.Seconds())

	plain, err := link.New(b.plane.Address())
	if err != nil {
		return err
	}
	defer plain.Close()
	plain.SetShape(thinShape, thinShape)
	if bytes, last, err = b.informers(ctx, "direct", plain, 1, ""); err != nil {
		return err
	}
	used.add("direct", fleetSize*bytes/1e3)
	took.add("direct", fleetSize*last.Seconds())
	what := fmt.Sprintf("program of %d informers x %d pods restarts, 1 %% changed, 1 Mbit/s, 100 ms", fleetSize, someObjects)
	b.report.compare(what, "over the link, both ways", "KB", used).atMost(0.03, ofRatio)
	b.report.compare(what, "until all have all", "s", took).atMost(0.1, ofRatio)
	if err := b.savedLists(ctx); err != nil {
		return err
	}
	return b.fastReads(ctx)
}

// The settings of online.reads.
const (
	readsPass = "pass"
	readsSave = "save"
)

// fastReads measures what online.reads=save costs a program that starts again on a fast link, where
// the API server lists faster than a proof takes.
func (b *bench) fastReads(ctx context.Context) error {
	wan, err := link.New(b.plane.Address())
	if err != nil {
		return err
	}
	defer wan.Close()
	informer, list, again := series{}, series{}, series{}
	for round := range max(b.rounds, 3) + 1 {
		modes := []string{readsPass, readsSave}
		if round%2 == 1 {
			slices.Reverse(modes)
		}
		for _, reads := range modes {
			_, took, err := b.informers(ctx, "on", wan, 1, reads)
			if err != nil {
				return err
			}
			t, err := b.startRemote(ctx, "fast-"+reads, wan, "--online.reads", reads)
			if err != nil {
				return err
			}
			first, _, err := t.timed(ctx, podsPath(someNamespace), asJSON)
			if err == nil {
				_, err = t.cpu(ctx) // it has recorded
			}
			var second time.Duration
			if err == nil {
				second, _, err = t.timed(ctx, podsPath(someNamespace), asJSON)
			}
			if err == nil {
				_, err = t.cpu(ctx)
			}
			t.sidecar.stop()
			if err != nil {
				return err
			}
			if round > 0 { // the first one fills the caches
				informer.add(reads, ms(took))
				list.add(reads, ms(first))
				again.add(reads, ms(second))
			}
		}
	}
	what := fmt.Sprintf("a program restarts with its sidecar, %d pods, fast link", someObjects)
	for _, m := range []struct {
		measure string
		took    series
	}{{"informer, until it has all", informer}, {"LIST in JSON, to the last byte", list}, {"the next LIST", again}} {
		b.report.medians(what, m.measure+", online.reads=pass", "ms", series{"on": m.took[readsPass]})
		b.report.medians(what, m.measure+", online.reads=save", "ms", series{"on": m.took[readsSave]})
		b.report.medians(what, m.measure+", save of pass", "x", series{"on": m.took.ratios(readsSave, readsPass)}).atMost(1.1, ofOn)
	}
	return nil
}

// informers runs a program over a link until its informers have all pods. It returns the bytes on
// the link, both ways, and the time. With a setting of online.reads there is a sidecar, which
// starts before and stops after it.
func (b *bench) informers(ctx context.Context, name string, over *link.Link, size int, reads string) (bytes float64, took time.Duration, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	config := &rest.Config{Host: "https://" + over.Address(), BearerToken: b.token, TLSClientConfig: rest.TLSClientConfig{CAData: b.plane.CA()}}
	f := &fleet{name: name, link: over}
	f.traffic()
	var c *sidecar
	if reads != "" {
		c, err = b.startSidecar(ctx, sidecarOptions{name: "reads-" + reads, record: true, metrics: true, upstream: over.Address(), settings: []string{"--online.reads", reads}})
		if err != nil {
			return 0, 0, err
		}
		defer c.stop()
		config.Host = "https://" + c.address
		if config.CAData, err = c.ca(); err != nil {
			return 0, 0, err
		}
		defer func() { _, _ = settled(ctx, c.pid()) }() // it records behind its answers
	}
	config.QPS, config.Burst = -1, 0
	begun := time.Now()
	if err := f.start(ctx, config, size); err != nil {
		return 0, 0, err
	}
	behind, err := b.waitFor(ctx, []*fleet{f}, nil)
	if err != nil {
		return 0, 0, err
	}
	switch {
	case len(behind) == 0:
	case size == 1:
		b.report.wrong("an informer, %s, does not get the state of the API server", name)
	default: // the API server lists all again: a missed target, which need not be waited for
		progress("saved: not all informers have all pods after %v; the rows have what it took until then", awaitPatience)
	}
	bytes, took = f.traffic(), time.Since(begun)
	if c != nil && size > 1 {
		answers, err := c.metrics(ctx, "rockpool_saved_reads_total")
		if err != nil {
			return 0, 0, err
		}
		progress("saved: %.0f s, %.1f MB: %s", took.Seconds(), bytes/1e6, strings.Join(answers, ", "))
	}
	return bytes, took, nil
}
