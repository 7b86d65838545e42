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
	online, offline := series{}, series{}
	for range min(b.rounds, 3) {
		cost, err := c.Count(ctx)
		if err != nil {
			return err
		}
		progress("case instructions: %.0f online, %.0f offline", cost.Online, cost.Offline)
		online.add("on", cost.Online/1000)
		offline.add("on", cost.Offline/1000)
	}
	b.instructionsOf("GET 1 KiB", online)
	b.instructionsOf("offline GET 1 KiB", offline)
	return nil
}

// instructionsOf reports what GETs have cost, in thousands, and how far the rounds were apart.
func (b *bench) instructionsOf(what string, s series) {
	b.report.medians(what, "instructions a request, without the kernel's", "1000", s)
	b.report.note(what, "largest difference between two rounds", "%", none, 100*s.spread("on"))
}
