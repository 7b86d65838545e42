package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// memory is the sidecar's memory at a time, in bytes.
type memory struct {
	at             time.Duration // since the first sample
	rss, anonymous int           // by the kernel
	heap, idle     int           // Go's: spans in use, and spans that are free and not returned to the kernel
	goroutines     int
}

func (m memory) String() string {
	const mib = 1 << 20
	return fmt.Sprintf("%4.0f s: RSS %.1f MiB, of it anonymous %.1f; Go heap %.1f in use, %.1f idle; %d goroutines",
		m.at.Seconds(), float64(m.rss)/mib, float64(m.anonymous)/mib, float64(m.heap)/mib, float64(m.idle)/mib, m.goroutines)
}

// sampling takes samples of the sidecar's memory until it is stopped.
type sampling struct {
	cancel  context.CancelFunc
	ended   chan struct{}
	samples []memory
}

func (p *testPod) sample(every time.Duration) *sampling {
	p.site.t.Helper()
	pid, err := p.PID("rockpool-sidecar")
	p.site.must(err)
	ctx, cancel := context.WithCancel(p.site.ctx)
	x := &sampling{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(x.ended)
		ticker, began := time.NewTicker(every), time.Now()
		defer ticker.Stop()
		for {
			if m, err := p.memory(pid); err != nil {
				p.site.t.Log(err)
			} else {
				m.at = time.Since(began)
				p.site.t.Log(m)
				x.samples = append(x.samples, m)
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	p.site.t.Cleanup(func() { x.stop() })
	return x
}

// stop may be called more than once.
func (x *sampling) stop() []memory {
	x.cancel()
	<-x.ended
	return x.samples
}

// memory reads the memory of the process pid, which is the sidecar.
func (p *testPod) memory(pid int) (m memory, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(status)) {
		var kib int
		name, value, _ := strings.Cut(line, ":")
		_, _ = fmt.Sscan(value, &kib) // others are no numbers
		switch name {
		case "VmRSS":
			m.rss = kib << 10
		case "RssAnon":
			m.anonymous = kib << 10
		}
	}
	all, err := p.metrics()
	m.heap, m.goroutines = all["go_memstats_heap_inuse_bytes"], all["go_goroutines"]
	m.idle = all["go_memstats_heap_idle_bytes"] - all["go_memstats_heap_released_bytes"]
	return m, err
}

// checkMemory reports a leak: the sidecar's RSS in the last quarter of the time is more than 5 %
// above that in the second one. The memory of the race detector grows without a leak.
func checkMemory(t *testing.T, samples []memory) {
	t.Helper()
	n := len(samples)
	if n < 8 {
		t.Logf("only %d samples of the memory, too few for a trend", n)
		return
	}
	for i := range 4 {
		quarter := samples[i*n/4 : (i+1)*n/4]
		t.Logf("quarter %d: median RSS %.2f MiB, anonymous %.2f MiB, Go heap in use %.2f MiB", i+1,
			median(quarter, func(m memory) int { return m.rss }), median(quarter, func(m memory) int { return m.anonymous }),
			median(quarter, func(m memory) int { return m.heap }))
	}
	if *race {
		t.Log("the race detector is on: the trend of the memory is not checked")
		return
	}
	if err := growth(samples); err != nil {
		t.Error(err)
	}
}

// growth is an error if the memory grows: see checkMemory.
func growth(samples []memory) error {
	rss := func(m memory) int { return m.rss }
	n := len(samples)
	second, last := median(samples[n/4:n/2], rss), median(samples[3*n/4:], rss)
	if last > 1.05*second {
		return fmt.Errorf("the sidecar's memory grows: median RSS %.2f MiB in the second quarter of the time, %.2f MiB in the last one", second, last)
	}
	return nil
}

// median is the median of samples, in MiB.
func median(samples []memory, of func(memory) int) float64 {
	all := make([]int, len(samples))
	for i, m := range samples {
		all[i] = of(m)
	}
	slices.Sort(all)
	return float64(all[len(all)/2]) / (1 << 20)
}

func TestALeakIsFound(t *testing.T) {
	for name, tt := range map[string]struct {
		rss  func(i int) int // of sample i, in KiB
		leak bool
	}{
		"flat":                         {func(int) int { return 40000 }, false},
		"it grows and then stays":      {func(i int) int { return 30000 + 1000*min(i, 10) }, false},
		"peaks":                        {func(i int) int { return 40000 + i%3*10000 }, false},
		"it shrinks":                   {func(i int) int { return 40000 - 100*i }, false},
		"1 MiB in ten minutes, 60 MiB": {func(i int) int { return 61440 + 1024*i/60 }, false},
		"33 MiB in seven minutes":      {func(i int) int { return 88064 + 33792*i/42 }, true},
		"5 MiB in seven minutes":       {func(i int) int { return 40000 + 5120*i/42 }, true},
		"a step in the last quarter":   {func(i int) int { return 40000 + i/32*3000 }, true},
	} {
		t.Run(name, func(t *testing.T) {
			var samples []memory
			for i := range 42 {
				samples = append(samples, memory{rss: tt.rss(i) << 10})
			}
			if err := growth(samples); (err != nil) != tt.leak {
				t.Errorf("leak %v: %v", tt.leak, err)
			}
		})
	}
}
