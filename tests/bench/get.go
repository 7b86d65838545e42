package main

import (
	"bytes"
	"context"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	smallPath = "/api/v1/namespaces/" + smallNamespace + "/configmaps/small"
	clients   = 16
)

// get measures one object for one client.
func (b *bench) get(ctx context.Context) error {
	if err := b.sameObject(ctx); err != nil {
		return err
	}
	requests := 300
	if b.short {
		requests = 100
	}
	return b.timeGETs(ctx, "GET 1 KiB, 1 client", requests, 1.10, b.targets)
}

// timeGETs sends GETs to the targets of each round in turn, and reports p50 and p99. bound is the
// target for the ratio of the p50 of "on" to direct access.
func (b *bench) timeGETs(ctx context.Context, what string, requests int, bound float64, targets func(round int) []*target) error {
	p50, p99 := series{}, series{}
	for round := range b.rounds {
		for _, t := range targets(round) {
			took, err := t.repeat(ctx, smallPath, asJSON, requests)
			if err != nil {
				return err
			}
			p50.add(t.name, percentile(took, 50))
			p99.add(t.name, percentile(took, 99))
		}
	}
	r := b.report.compare(what, "p50", "ms", p50)
	r.atMost(p50.ratio("on", "direct"), bound, "on x")
	b.report.compare(what, "p99", "ms", p99)
	return nil
}

// sameObject checks that the answers of all targets are the same, byte for byte.
func (b *bench) sameObject(ctx context.Context) error {
	want, err := b.direct.body(ctx, smallPath, asJSON)
	if err != nil {
		return err
	}
	for _, t := range []*target{b.on, b.off} {
		got, err := t.body(ctx, smallPath, asJSON)
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			b.report.wrong("GET through %s: %d bytes differ from the %d of direct access", t.name, len(got), len(want))
		}
	}
	return nil
}

// repeat sends the same GET n times and returns the durations in ms, without the first few, which
// warm everything up.
func (t *target) repeat(ctx context.Context, path, accept string, n int) (took []float64, err error) {
	const warm = 5
	for i := range n + warm {
		d, _, err := t.timed(ctx, path, accept)
		if err != nil {
			return nil, err
		}
		if i >= warm {
			took = append(took, ms(d))
		}
	}
	return took, nil
}

// throughput measures one object for many clients.
func (b *bench) throughput(ctx context.Context) error {
	last := 2 * time.Second
	if b.short {
		last = time.Second
	}
	crowds := map[string][]*http.Client{}
	for _, t := range b.targets(0) {
		for range clients {
			c, err := t.fresh()
			if err != nil {
				return err
			}
			crowds[t.name] = append(crowds[t.name], c)
		}
		if _, err := t.crowd(ctx, crowds[t.name], 200*time.Millisecond); err != nil {
			return err
		}
	}
	rate, cpu := series{}, series{}
	for round := range b.rounds {
		for _, t := range b.targets(round) {
			before, err := t.cpu(ctx)
			if err != nil {
				return err
			}
			start := time.Now()
			n, err := t.crowd(ctx, crowds[t.name], last)
			if err != nil {
				return err
			}
			rate.add(t.name, float64(n)/time.Since(start).Seconds())
			after, err := t.cpu(ctx)
			if err != nil {
				return err
			}
			cpu.add(t.name, ms(after-before)/float64(n))
		}
	}
	r := b.report.compare("GET 1 KiB, 16 clients", "requests", "1/s", rate)
	r.atLeast(rate.ratio("on", "direct"), 0.88, "on x")
	r = b.report.note("GET 1 KiB, 16 clients", "own CPU a request", "ms", cpu.median("off"), cpu.median("on"))
	r.atMost(cpu.median("on"), 0.30, "on")
	return nil
}

// cpu returns the CPU time of the target's sidecar when it is idle.
func (t *target) cpu(ctx context.Context) (time.Duration, error) {
	if t.sidecar == nil {
		return 0, nil
	}
	return t.sidecar.settled(ctx)
}

// crowd has all clients send GETs for some time, and returns the number of answers.
func (t *target) crowd(ctx context.Context, crowd []*http.Client, last time.Duration) (answered int, err error) {
	group, ctx := errgroup.WithContext(ctx)
	end := time.Now().Add(last)
	counts := make([]int, len(crowd))
	for i, client := range crowd {
		group.Go(func() error {
			for time.Now().Before(end) {
				if _, err := t.fetch(ctx, client, smallPath, asJSON, nil); err != nil {
					return err
				}
				counts[i]++
			}
			return nil
		})
	}
	err = group.Wait()
	for _, n := range counts {
		answered += n
	}
	return answered, err
}
