package main

import (
	"context"
	"fmt"
	"time"
)

// start measures how soon a sidecar serves, and its memory when it is idle.
func (b *bench) start(ctx context.Context) error {
	var ready [2][]float64
	for round := range b.rounds {
		for i := range 2 {
			c, err := b.startSidecar(ctx, sidecarOptions{name: fmt.Sprintf("start-%d-%d", round, i), record: i == 1})
			if err != nil {
				return err
			}
			ready[i] = append(ready[i], ms(c.ready))
			c.stop()
		}
	}
	b.report.medians("start", "to the first TLS handshake, new cache", "ms", series{"off": ready[0], "on": ready[1]}).atMost(300, ofOn)

	m, err := b.idle(ctx, min(b.rounds, 3))
	if err != nil {
		return err
	}
	b.report.memory("idle, 3 s after the start", m, 24, 8)
	return nil
}

// idle returns the memory of new sidecars that nobody asks. They start one after the other, and wait
// together.
func (b *bench) idle(ctx context.Context, rounds int) (memories, error) {
	m := memories{}
	var began []*sidecar
	defer func() {
		for _, c := range began {
			c.stop()
		}
	}()
	names := []string{"off", "on"}
	for i := range rounds * len(names) {
		name := names[i%len(names)]
		c, err := b.startSidecar(ctx, sidecarOptions{name: fmt.Sprint("idle-", name, i), record: name == "on"})
		if err != nil {
			return m, err
		}
		began = append(began, c)
	}
	for i, c := range began {
		if err := until(ctx, c.started.Add(3*time.Second)); err != nil {
			return m, err
		}
		now, err := memoryOf(c.pid())
		if err != nil {
			return m, err
		}
		m.add(names[i%len(names)], now)
	}
	return m, nil
}

// memories are those of the two sidecars, in rounds.
type memories map[string][]memory

func (m memories) add(name string, now memory) { m[name] = append(m[name], now) }

// series is a part of the memories in MiB.
func (m memories) series(part func(memory) int64) series {
	s := series{}
	for name, all := range m {
		for _, one := range all {
			s.add(name, mib(part(one)))
		}
	}
	return s
}

// memory adds rows about the memory of the two sidecars. A bound of 0 is no bound.
func (r *report) memory(what string, m memories, rss, private float64) {
	r.medians(what, "RSS", "MiB", m.series(func(m memory) int64 { return m.rss })).atMost(rss, ofOn)
	line := r.medians(what, "of which private (RssAnon)", "MiB", m.series(func(m memory) int64 { return m.anon }))
	if private > 0 {
		line.atMost(private, ofOn)
	}
	r.medians(what, "of which files (RssFile)", "MiB", m.series(func(m memory) int64 { return m.file }))
	r.medians(what, "largest RSS so far (VmHWM)", "MiB", m.series(func(m memory) int64 { return m.peak }))
}

// memory measures the memory of new sidecars after lists.
func (b *bench) memory(ctx context.Context) error {
	sizes := []struct {
		namespace string
		objects   int
	}{{someNamespace, someObjects}, {manyNamespace, manyObjects}}
	if b.short {
		sizes = sizes[:1]
	}
	for _, size := range sizes {
		if err := b.pods(ctx, size.namespace, size.objects); err != nil {
			return err
		}
		held := memories{}
		for _, t := range []*target{b.off, b.on} {
			for _, e := range encodings {
				for range 2 {
					if _, _, err := t.timed(ctx, podsPath(size.namespace), e.accept); err != nil {
						return err
					}
					if _, err := t.cpu(ctx); err != nil {
						return err
					}
				}
			}
			now, err := memoryOf(t.sidecar.pid())
			if err != nil {
				return err
			}
			held.add(t.name, now)
		}
		what := fmt.Sprintf("after LISTs of %d, 2 JSON and 2 protobuf", size.objects)
		b.report.memory(what, held, 40, 0)
		off, on := held["off"][0].peak, held["on"][0].peak
		added := series{"on": {mib(on - off)}}
		b.report.difference(what, "recording adds to the largest RSS", "MiB", added, mib(on)).atMost(16, ofOn)
		if err := b.recordedAll(ctx, "pods", size.namespace, 0); err != nil {
			return err
		}
	}
	return nil
}
