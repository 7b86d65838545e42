package main

import (
	"bytes"
	"context"
	"net/http"
	"slices"
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
	costs := newCosts()
	took, err := b.timeGETs(ctx, requests, b.targets, costs)
	if err != nil {
		return err
	}
	b.report.requests("GET 1 KiB, 1 client", took, 1.10, 1.05)
	b.report.costs("GET 1 KiB, 1 client", costs)
	return nil
}

// costs are what requests cost the targets themselves.
type costs struct{ cpu, allocated series } // ms and bytes a request

func newCosts() *costs { return &costs{cpu: series{}, allocated: series{}} }

// of adds the costs of the requests that f sends. f returns their number.
func (c *costs) of(ctx context.Context, t *target, f func() (int, error)) error {
	counted := t.sidecar != nil && t.sidecar.metricsAddress != ""
	var before, after float64
	var err error
	if counted {
		if before, err = t.sidecar.allocated(ctx); err != nil {
			return err
		}
	}
	cpu, err := t.cpu(ctx)
	if err != nil {
		return err
	}
	n, err := f()
	if err != nil {
		return err
	}
	used, err := t.cpu(ctx)
	if err != nil {
		return err
	}
	if t.name != "direct" {
		c.cpu.add(t.name, ms(used-cpu)/float64(n))
	}
	if counted {
		if after, err = t.sidecar.allocated(ctx); err != nil {
			return err
		}
		c.allocated.add(t.name, (after-before)/float64(n))
	}
	return nil
}

// costs adds rows about the costs of a request.
func (r *report) costs(what string, c *costs) {
	line := r.compare(what, "own CPU a request", "ms", c.cpu)
	line.atMost(0.30, ofOn)
	if len(c.cpu["nginx"]) > 0 {
		r.medians(what, "own CPU a request, of nginx's", "x", c.cpu.of("nginx")).atMost(2, ofOn)
	}
}

// allocated adds a row about the bytes that a request allocates. Thousands of requests must have been
// sent in each round: the question itself takes as much as hundreds.
func (r *report) allocated(what string, c *costs) {
	line := r.compare(what, "allocated a request", "bytes", c.allocated)
	line.atMost(8<<10, ofOn)
}

// requests adds rows about the time of requests. direct and nginx bound the ratio of the p50 to
// that of direct access, and to that of nginx.
func (r *report) requests(what string, t timed, direct, nginx float64) {
	line := r.compare(what, "p50", "ms", t.p50)
	if direct > 0 {
		line.atMost(direct, ofRatio)
	}
	if len(t.p50["nginx"]) > 0 {
		r.medians(what, "p50, of nginx's", "x", t.p50.of("nginx")).atMost(nginx, ofOn)
	}
	r.compare(what, "p99", "ms", t.p99)
}

// timed are percentiles of the times of requests, in ms.
type timed struct{ p50, p99 series }

func (t timed) add(name string, took []float64) {
	t.p50.add(name, percentile(took, 50))
	t.p99.add(name, percentile(took, 99))
}

// timeGETs sends GETs to the targets of each round in turn. costs, if not nil, receives what they
// cost.
func (b *bench) timeGETs(ctx context.Context, requests int, targets func(round int) []*target, c *costs) (timed, error) {
	all := timed{series{}, series{}}
	for round := range b.rounds {
		for _, t := range targets(round) {
			send := func() (int, error) {
				took, err := t.repeat(ctx, smallPath, asJSON, requests)
				all.add(t.name, took)
				return requests + warm, err
			}
			var err error
			if c != nil {
				err = c.of(ctx, t, send)
			} else {
				_, err = send()
			}
			if err != nil {
				return all, err
			}
		}
	}
	return all, nil
}

// sameObject checks that the answers of all targets are the same, byte for byte.
func (b *bench) sameObject(ctx context.Context) error {
	want, err := b.direct.body(ctx, smallPath, asJSON)
	if err != nil {
		return err
	}
	for _, t := range b.targets(0)[1:] {
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

// warm is the number of requests that warm everything up.
const warm = 5

// repeat sends the same GET n times and returns the durations in ms, without those that warm up.
func (t *target) repeat(ctx context.Context, path, accept string, n int) (took []float64, err error) {
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
	last := 1500 * time.Millisecond
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
	rate, all, costs := series{}, timed{series{}, series{}}, newCosts()
	for round := range b.rounds {
		for _, t := range b.targets(round) {
			err := costs.of(ctx, t, func() (int, error) {
				start := time.Now()
				took, err := t.crowd(ctx, crowds[t.name], last)
				rate.add(t.name, float64(len(took))/time.Since(start).Seconds())
				all.add(t.name, took)
				return len(took), err
			})
			if err != nil {
				return err
			}
		}
	}
	const what = "GET 1 KiB, 16 clients"
	b.report.compare(what, "requests", "1/s", rate).atLeast(0.88, ofRatio)
	b.report.requests(what, all, 0, 1.15)
	b.report.costs(what, costs)
	b.report.allocated(what, costs)
	return nil
}

// cpu returns the CPU time of the target's sidecar, or of nginx, when it is idle.
func (t *target) cpu(ctx context.Context) (time.Duration, error) {
	if pid := t.pid(); pid != 0 {
		return settled(ctx, pid)
	}
	return 0, nil
}

// cpuAtRest is cpu of a target that nobody has asked anything since the last cpu: it does not wait.
func (t *target) cpuAtRest() (time.Duration, error) {
	if pid := t.pid(); pid != 0 {
		return cpuOf(pid)
	}
	return 0, nil
}

// pid is the process of the target, or 0 for direct access.
func (t *target) pid() int {
	switch {
	case t.nginx != nil:
		return t.nginx.cmd.Process.Pid
	case t.sidecar != nil:
		return t.sidecar.pid()
	}
	return 0
}

// crowd has all clients send GETs for some time, and returns the durations in ms.
func (t *target) crowd(ctx context.Context, crowd []*http.Client, last time.Duration) (all []float64, err error) {
	group, ctx := errgroup.WithContext(ctx)
	end := time.Now().Add(last)
	took := make([][]float64, len(crowd))
	for i, client := range crowd {
		group.Go(func() error {
			for time.Now().Before(end) {
				start := time.Now()
				if _, err := t.fetch(ctx, client, smallPath, asJSON, nil); err != nil {
					return err
				}
				took[i] = append(took[i], ms(time.Since(start)))
			}
			return nil
		})
	}
	err = group.Wait()
	return slices.Concat(took...), err
}
