package main

import (
	"bytes"
	"context"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"rockpool.dev/tests/bed/link"
)

// offline compares answers from the cache with those of the API server, which stays reachable by
// direct access when the sidecar's link is cut.
func (b *bench) offline(ctx context.Context) error {
	if err := b.pods(ctx, someNamespace, someObjects); err != nil {
		return err
	}
	wan, err := link.New(b.plane.Address())
	if err != nil {
		return err
	}
	defer wan.Close()
	t, err := b.startRemote(ctx, "edge", wan)
	if err != nil {
		return err
	}
	defer t.sidecar.stop()
	if err := b.recordedAlike(ctx, t); err != nil {
		return err
	}
	if _, err := t.cpu(ctx); err != nil {
		return err
	}
	if err := b.keysKnown(ctx, t.sidecar); err != nil {
		return err
	}
	for _, f := range []fault{{"refused", wan.Cut, 50}, {"a black hole", wan.BlackHole, 3000}} {
		if err := b.verdicts(ctx, t, wan, f); err != nil {
			return err
		}
	}
	wan.Cut()
	if _, _, err := t.answer(ctx, fromCache); err != nil {
		return err
	}
	for _, e := range encodings {
		if err := b.offlineList(ctx, t, "offline LIST 2000 pods, "+e.name, e.accept); err != nil {
			return err
		}
	}
	return b.offlineGet(ctx, t)
}

// recordedAlike records the pods in both encodings at one version. Otherwise the newer list would
// answer for both encodings, with a conversion for one.
func (b *bench) recordedAlike(ctx context.Context, t *target) error {
	return wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		for _, e := range encodings {
			if _, _, err := t.timed(ctx, podsPath(someNamespace), e.accept); err != nil {
				return false, err
			}
		}
		if _, err := t.cpu(ctx); err != nil { // it waits until the list is written
			return false, err
		}
		n, err := t.sidecar.sql(ctx, "SELECT count(*) || ' ' || count(DISTINCT resource_version) FROM collection WHERE resource = 'pods' AND state = 'complete'")
		return n == "2 1", err
	})
}

// keysKnown waits until the sidecar can verify tokens without the API server.
func (b *bench) keysKnown(ctx context.Context, c *sidecar) error {
	return wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		n, err := c.sql(ctx, "SELECT count(*) > 0 FROM fact WHERE key = 'jwks'")
		return n == "1", err
	})
}

func (b *bench) offlineList(ctx context.Context, t *target, what, accept string) error {
	path := podsPath(someNamespace)
	want, err := b.direct.body(ctx, path, accept)
	if err != nil {
		return err
	}
	got, err := t.body(ctx, path, accept)
	if err != nil {
		return err
	}
	if !sameItems(got, want) {
		b.report.wrong("%s: %d bytes differ from the %d of direct access", what, len(got), len(want))
	}
	if _, err := t.cpu(ctx); err != nil {
		return err
	}
	took, cpu := series{}, series{}
	for range b.rounds {
		d, _, err := b.direct.timed(ctx, path, accept)
		if err != nil {
			return err
		}
		took.add("direct", ms(d))
		before, err := t.cpuAtRest()
		if err != nil {
			return err
		}
		if d, _, err = t.timed(ctx, path, accept); err != nil {
			return err
		}
		took.add("on", ms(d))
		after, err := t.cpu(ctx)
		if err != nil {
			return err
		}
		cpu.add("on", ms(after-before))
	}
	b.report.compare(what, "to the last byte", "ms", took).atMost(0.5, ofRatio)
	b.report.medians(what, "own CPU", "ms", cpu)
	return nil
}

func (b *bench) offlineGet(ctx context.Context, t *target) error {
	want, err := b.direct.body(ctx, smallPath, asJSON)
	if err != nil {
		return err
	}
	got, err := t.body(ctx, smallPath, asJSON)
	if err != nil {
		return err
	}
	if !bytes.Equal(bytes.TrimSpace(got), bytes.TrimSpace(want)) {
		b.report.wrong("offline GET: %q, want %q as by direct access", got, want)
	}
	took, err := b.timeGETs(ctx, 100, func(int) []*target { return []*target{b.direct, t} }, nil)
	if err != nil {
		return err
	}
	b.report.requests("offline GET 1 KiB, 1 client", took, 0.3, 0)
	return nil
}
