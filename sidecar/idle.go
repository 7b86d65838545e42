package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"go.uber.org/zap"
	"k8s.io/utils/clock"
)

const (
	// startInterval is how long a start may take. What it has needed is given back then, unless a
	// program lists already: more than startBytes were allocated.
	startInterval = 2 * time.Second
	startBytes    = 16 << 20
	// idleInterval is how long a sidecar must be quiet before it gives memory back to the node.
	idleInterval = 10 * time.Second
	// quietBytes is how many bytes a quiet sidecar allocates in that time at most.
	quietBytes = 256 << 10
	// usedBytes is how many it must have allocated since it gave memory back, to do so again.
	usedBytes = 4 << 20
)

// idleMemory decides when memory is given back to the node. The Go runtime keeps what a list needed,
// because the next one may need it, too, and gives it back only slowly; so does SQLite. Beside many
// other sidecars that are quiet most of the time it is better given back.
type idleMemory struct {
	started        bool
	last, released uint64
}

// due is called after the start and then once in an idleInterval, with how many bytes were allocated
// since the program began.
func (m *idleMemory) due(allocated uint64) bool {
	first := !m.started && allocated <= startBytes
	m.started = true
	quiet, used := allocated-m.last <= quietBytes, allocated-m.released >= usedBytes
	m.last = allocated
	if quiet && used {
		m.released = allocated
	}
	return first || quiet && used
}

// releaseMemory gives memory back to the node once the start is over, and whenever the sidecar has
// become quiet, until ctx ends.
func (s *sidecar) releaseMemory(ctx context.Context, c clock.WithTicker) {
	wait := c.NewTimer(startInterval)
	defer wait.Stop()
	var m idleMemory
	allocated := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	for {
		select {
		case <-ctx.Done():
			return
		case <-wait.C():
		}
		wait.Reset(idleInterval)
		metrics.Read(allocated)
		if m.due(allocated[0].Value.Uint64()) {
			s.release(ctx)
		}
	}
}

func (s *sidecar) release(ctx context.Context) {
	if err := s.caches.ReleaseMemory(ctx); err != nil && ctx.Err() == nil {
		s.log.Debug("the caches keep their memory", zap.Error(err))
	}
	// A pool keeps its buffers through one collection, and FreeOSMemory collects once.
	runtime.GC()
	debug.FreeOSMemory()
	if err := releaseText(); err != nil {
		s.log.Debug("the pages of the program stay in memory", zap.Error(err))
	}
}
