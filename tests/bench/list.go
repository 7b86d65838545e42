package main

import (
	"context"
	"fmt"
	"net/url"
)

func podsPath(namespace string) string { return "/api/v1/namespaces/" + namespace + "/pods" }

var encodings = []struct{ name, accept string }{{"JSON", asJSON}, {"protobuf", asProtobuf}}

// lists measures complete lists. A sidecar that records has recorded the list before, unless a new
// selector, which matches everything, makes it a new list.
func (b *bench) lists(ctx context.Context) error {
	if err := b.pods(ctx, someNamespace, someObjects); err != nil {
		return err
	}
	if err := b.list(ctx, someNamespace, someObjects, b.rounds); err != nil || b.short {
		return err
	}
	if err := b.pods(ctx, manyNamespace, manyObjects); err != nil {
		return err
	}
	return b.list(ctx, manyNamespace, manyObjects, (b.rounds+2)/3)
}

func (b *bench) list(ctx context.Context, namespace string, objects, rounds int) error {
	for _, e := range encodings {
		size, err := b.sameList(ctx, podsPath(namespace), e.accept)
		if err != nil {
			return err
		}
		what := fmt.Sprintf("LIST %d pods, %s, %.1f MB", objects, e.name, float64(size)/1e6)
		again, err := b.listRounds(ctx, rounds, e.accept, b.targets, func(int) string { return podsPath(namespace) })
		if err != nil {
			return err
		}
		b.report.lists(what, "recorded before", again)
		if err := b.zippedLists(ctx, what, rounds, e.accept, podsPath(namespace)); err != nil {
			return err
		}
		if objects == manyObjects {
			continue // more lists would exceed the quota and cause evictions
		}
		first, err := b.listRounds(ctx, rounds, e.accept, b.targets, func(round int) string {
			return podsPath(namespace) + "?labelSelector=" + url.QueryEscape(fmt.Sprintf("round!=%d%s", round, e.name))
		})
		if err != nil {
			return err
		}
		b.report.lists(what, "first time", first)
	}
	return nil
}

// listing are the measurements of one list.
type listing struct{ took, cpu series }

// zippedLists measures a list whose client asks for gzip.
func (b *bench) zippedLists(ctx context.Context, what string, rounds int, accept, path string) error {
	zipped := map[string]*target{}
	for _, t := range b.targets(0) {
		z, err := t.zipped()
		if err != nil {
			return err
		}
		zipped[t.name] = z
		if _, _, err := z.timed(ctx, path, accept); err != nil { // connects
			return err
		}
	}
	l, err := b.listRounds(ctx, rounds, accept, func(round int) (all []*target) {
		for _, t := range b.targets(round) {
			all = append(all, zipped[t.name])
		}
		return all
	}, func(int) string { return path })
	if err != nil {
		return err
	}
	line := b.report.compare(what, "for a client that asks for gzip: to the last byte", "ms", l.took)
	line.atMost(1.05, ofRatio)
	b.report.medians(what, "for a client that asks for gzip: own CPU", "ms", l.cpu)
	return nil
}

func (b *bench) listRounds(
	ctx context.Context, rounds int, accept string, targets func(round int) []*target, path func(round int) string,
) (l listing, err error) {
	l = listing{series{}, series{}}
	for _, t := range targets(0) {
		if _, err := t.cpu(ctx); err != nil {
			return l, err
		}
	}
	for round := range rounds {
		for _, t := range targets(round) {
			before, err := t.cpuAtRest()
			if err != nil {
				return l, err
			}
			took, _, err := t.timed(ctx, path(round), accept)
			if err != nil {
				return l, err
			}
			after, err := t.cpu(ctx)
			if err != nil {
				return l, err
			}
			l.took.add(t.name, ms(took))
			l.cpu.add(t.name, ms(after-before))
		}
	}
	return l, nil
}

func (r *report) lists(what, when string, l listing) {
	line := r.compare(what, when+": to the last byte", "ms", l.took)
	line.atMost(1.05, ofRatio)
	adds := series{}
	for _, ratio := range l.took.ratios("on", "off") {
		adds.add("on", ratio-1)
	}
	r.difference(what, when+": recording adds, of the time to the last byte", "x", adds, 1).atMost(0.10, ofOn)
	r.medians(what, when+": own CPU", "ms", l.cpu)
}

// sameList checks that the items of all targets are the same, byte for byte, and waits until the
// list is recorded.
func (b *bench) sameList(ctx context.Context, path, accept string) (size int, err error) {
	want, err := b.direct.body(ctx, path, accept)
	if err != nil {
		return 0, err
	}
	for _, t := range []*target{b.off, b.on} {
		got, err := t.body(ctx, path, accept)
		if err != nil {
			return 0, err
		}
		if !sameItems(got, want) {
			b.report.wrong("LIST %s (%s) through %s: %d bytes differ from the %d of direct access", path, accept, t.name, len(got), len(want))
		}
	}
	if _, err := b.on.cpu(ctx); err != nil {
		return 0, err
	}
	return len(want), nil
}

// relist measures the writes to the disk when a list has not changed.
func (b *bench) relist(ctx context.Context) error {
	if err := b.pods(ctx, someNamespace, someObjects); err != nil {
		return err
	}
	for _, e := range encodings {
		path := podsPath(someNamespace)
		size, err := b.sameList(ctx, path, e.accept)
		if err != nil {
			return err
		}
		shares := series{}
		for range b.rounds {
			before, err := writtenBy(b.on.sidecar.pid())
			if err != nil {
				return err
			}
			if _, _, err := b.on.timed(ctx, path, e.accept); err != nil {
				return err
			}
			if _, err := b.on.cpu(ctx); err != nil {
				return err
			}
			after, err := writtenBy(b.on.sidecar.pid())
			if err != nil {
				return err
			}
			shares.add("on", 100*float64(after-before)/float64(size))
		}
		// A few pages are written or none: the value is a small part of the payload.
		r := b.report.difference("LIST unchanged, "+e.name, "written to the disk, of the payload", "%", shares, 1)
		r.atMost(1, ofOn)
	}
	return b.recordedAll(ctx, "pods", someNamespace, 0)
}
