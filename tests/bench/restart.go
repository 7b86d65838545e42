package main

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	"rockpool.dev/tests/bed/link"
)

// restartRounds are enough: what is measured takes a tenth of what it may.
const restartRounds = 5

// restart measures how soon a sidecar with a full cache serves offline after a restart of its node,
// which has cleared its memory. The sidecar has closed the cache or was killed before; after a
// kill, the next one checks the file first.
func (b *bench) restart(ctx context.Context) error {
	if err := b.pods(ctx, someNamespace, someObjects); err != nil {
		return err
	}
	wan, err := link.New(b.plane.Address())
	if err != nil {
		return err
	}
	defer wan.Close()
	ends := []struct {
		name string
		end  func(*sidecar)
	}{{"closed", (*sidecar).stop}, {"killed", (*sidecar).kill}}
	ready, answered := series{}, series{}
	for range min(b.rounds, restartRounds) {
		for _, last := range ends {
			if err := b.fill(ctx, wan, last.end); err != nil {
				return err
			}
			wan.Cut()
			t, err := b.startRemote(ctx, "restart", wan)
			if err != nil {
				return err
			}
			ready.add(last.name, ms(t.sidecar.ready))
			answered.add(last.name, ms(time.Since(t.sidecar.started)))
			t.sidecar.stop()
		}
	}
	for _, last := range ends {
		what := fmt.Sprintf("start without a link, %d pods twice in the cache, %s", someObjects, last.name)
		b.report.medians(what, "to the first TLS handshake", "ms", series{"on": ready[last.name]}).atMost(300, ofOn)
		b.report.medians(what, "to the first answer, client's connection included", "ms", series{"on": answered[last.name]})
	}
	return nil
}

// fill fills the cache, ends its sidecar, and removes the files that a restart of a node removes.
func (b *bench) fill(ctx context.Context, wan *link.Link, end func(*sidecar)) error {
	wan.Restore()
	t, err := b.startRemote(ctx, "restart", wan)
	if err != nil {
		return err
	}
	c := t.sidecar
	defer c.stop()
	for _, e := range encodings {
		if _, _, err := t.timed(ctx, podsPath(someNamespace), e.accept); err != nil {
			return err
		}
	}
	if _, err := t.cpu(ctx); err != nil {
		return err
	}
	if err := b.keysKnown(ctx, c); err != nil {
		return err
	}
	end(c)
	for _, directory := range []string{c.path("mirror"), c.path("private")} {
		if err := os.RemoveAll(directory); err != nil {
			return err
		}
	}
	return nil
}

// kill ends the sidecar as a power loss does.
func (c *sidecar) kill() {
	_ = c.cmd.Process.Signal(syscall.SIGKILL) // fails if it has ended
	<-c.exited
}
