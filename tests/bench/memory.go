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
	r := b.report.note("start", "to the first TLS handshake, new cache", "ms", median(ready[0]), median(ready[1]))
	r.atMost(median(ready[1]), 300, "on")

	var idle [2]memory
	for i := range 2 {
		c, err := b.startSidecar(ctx, sidecarOptions{name: fmt.Sprintf("idle-%d", i), record: i == 1})
		if err != nil {
			return err
		}
		err = until(ctx, c.started.Add(3*time.Second))
		if err == nil {
			idle[i], err = memoryOf(c.pid())
		}
		c.stop()
		if err != nil {
			return err
		}
	}
	b.report.memory("idle, 3 s after the start", idle[0], idle[1], 24, 8)
	return nil
}

// memory adds rows about the memory of the two sidecars. A bound of 0 is no bound.
func (r *report) memory(what string, off, on memory, rss, private float64) {
	line := r.note(what, "RSS", "MiB", mib(off.rss), mib(on.rss))
	line.atMost(mib(on.rss), rss, "on")
	line = r.note(what, "of which private (RssAnon)", "MiB", mib(off.anon), mib(on.anon))
	if private > 0 {
		line.atMost(mib(on.anon), private, "on")
	}
	r.note(what, "of which files (RssFile)", "MiB", mib(off.file), mib(on.file))
	r.note(what, "largest RSS so far (VmHWM)", "MiB", mib(off.peak), mib(on.peak))
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
		var held [2]memory
		for i, t := range []*target{b.off, b.on} {
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
			var err error
			if held[i], err = memoryOf(t.sidecar.pid()); err != nil {
				return err
			}
		}
		what := fmt.Sprintf("after LISTs of %d, 2 JSON and 2 protobuf", size.objects)
		b.report.memory(what, held[0], held[1], 40, 0)
		added := mib(held[1].peak - held[0].peak)
		r := b.report.note(what, "recording adds to the largest RSS", "MiB", none, added)
		r.atMost(added, 16, "on")
		if err := b.recordedAll(ctx, "pods", size.namespace, 0); err != nil {
			return err
		}
	}
	return nil
}
