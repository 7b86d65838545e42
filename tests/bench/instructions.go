package main

import (
	"context"
	"errors"
	"os"

	"rockpool.dev/tests/bench/instructions"
)

// instructions counts the instructions of a GET, with the link and without. It needs no API server,
// and is skipped where valgrind is not installed.
func (b *bench) instructions(ctx context.Context) (err error) {
	c := instructions.Counter{GETs: 3000}
	if b.short {
		c.GETs = 1500
	}
	if err := c.Available(); err != nil {
		progress("case instructions: skipped: %v", err)
		return nil
	}
	if c.Directory, err = os.MkdirTemp("", "rockpool-instructions-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(c.Directory)) }()
	if c.Binary = b.sidecar; c.Binary == "" {
		if c.Binary, err = buildSidecar(ctx, c.Directory); err != nil {
			return err
		}
	}
	for range min(b.rounds, 3) {
		if err := c.Count(ctx); err != nil {
			return err
		}
	}
	costs, err := c.Costs()
	if err != nil {
		return err
	}
	online, offline, group := series{}, series{}, series{}
	for _, cost := range costs {
		progress("case instructions: %.0f online, %.0f offline, %.0f a group of the recorder", cost.Online, cost.Offline, cost.Group)
		online.add("on", cost.Online/1000)
		offline.add("on", cost.Offline/1000)
		group.add("on", cost.Group/1000)
	}
	b.instructionsOf("GET 1 KiB", "a request", online)
	b.instructionsOf("offline GET 1 KiB", "a request", offline)
	b.instructionsOf("GET 1 KiB, recorded", "a group", group)
	return nil
}

// instructionsOf reports what something has cost, and how far the rounds were apart.
func (b *bench) instructionsOf(what, of string, s series) {
	b.report.medians(what, "instructions "+of+", without the kernel's", "1000", s)
	b.report.note(what, "largest difference between two rounds", "%", none, 100*s.spread("on"))
}
