// Package processors says how many processors the Go runtime uses: GOMAXPROCS.
//
// One is best for what a sidecar mostly does. A request goes through several goroutines, and with
// more than one processor each hand-over may wake a thread, which costs more than the work that is
// handed over. Each processor takes memory, too. But a call of SQLite keeps its processor until the
// runtime takes it away, which may be after 10 ms. So there are more while the store writes; and
// while many watches are open, since a change that all of them show is encrypted for each of them.
package processors

import (
	"os"
	"runtime"
	"sync"
)

// most bounds the processors, which take 0.2 to 0.3 MiB each. The sidecar of one pod is rarely busy
// on more than one.
const most = 4

// Processors lowers GOMAXPROCS to one, except while somebody needs more. The nil Processors does
// nothing.
type Processors struct {
	one, all func()

	mu    sync.Mutex
	users int
}

// New lowers GOMAXPROCS to one. Where the environment sets GOMAXPROCS, that stays, and New
// returns nil.
func New() *Processors {
	if os.Getenv("GOMAXPROCS") != "" {
		return nil
	}
	return start(func() { runtime.GOMAXPROCS(1) }, func() {
		runtime.SetDefaultGOMAXPROCS() // the CPU limit of the container may have changed
		if runtime.GOMAXPROCS(0) > most {
			runtime.GOMAXPROCS(most)
		}
	})
}

func start(one, all func()) *Processors {
	one()
	return &Processors{one: one, all: all}
}

// More gives as many processors as the container may use, four at most, until the caller calls
// done.
func (p *Processors) More() (done func()) {
	if p == nil {
		return func() {}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.users++; p.users == 1 {
		p.all()
	}
	return p.fewer
}

func (p *Processors) fewer() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.users--; p.users == 0 {
		p.one()
	}
}
