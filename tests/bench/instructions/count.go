// Package instructions counts the instructions that the sidecar executes for one GET. Times and CPU
// times of a request vary by a half with what else a machine does. The number of instructions
// varies by a few per cent, so that smaller gains and losses show.
//
// Cachegrind, a tool of valgrind, counts them. The sidecar runs under it as it is, between a client
// and a stand-in for the API server that are not counted. Kernel code is not counted either.
// Cachegrind tells the number when the program ends. So the sidecar runs three times, with few
// GETs, with more GETs while the link is up, and with more GETs while it is down: the differences
// are what those GETs cost. (Callgrind could tell it in between, but fails when a signal reaches a
// Go program.)
//
// Two settings make a Go program repeatable under valgrind, which runs one thread at a time: with
// GOMAXPROCS=1 no thread spins in search of work, and without asynchronous preemption no signal
// arrives at a random place.
package instructions

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// ErrMissing means that the machine lacks the program that counts. The wrapping error says which.
var ErrMissing = errors.New("instructions cannot be counted")

// warm is the number of GETs that warm everything up, before the link is cut and after it.
const warm = 300

// Cost is what one GET costs, in instructions.
type Cost struct {
	Online, Offline float64
}

// Counter counts the instructions of a sidecar.
type Counter struct {
	// Binary is the path of the rockpool-sidecar.
	Binary string
	// GETs is how many GETs each difference is over.
	GETs int
	// Directory has the files of the sidecar. It is empty before and after.
	Directory string

	valgrind string // path
}

// Available returns an error that wraps ErrMissing, and says what to install, if instructions
// cannot be counted on this machine.
func (c *Counter) Available() (err error) {
	c.valgrind, err = exec.LookPath("valgrind")
	if err != nil {
		return fmt.Errorf("%w: valgrind is not installed; on Debian: apt-get install valgrind", ErrMissing)
	}
	return nil
}

// Count counts once. It takes the time of three runs, about half a minute on a quiet machine.
func (c *Counter) Count(ctx context.Context) (cost Cost, err error) {
	if err := c.Available(); err != nil {
		return cost, err
	}
	few, err := c.run(ctx, warm, warm)
	if err != nil {
		return cost, err
	}
	online, err := c.run(ctx, warm+c.GETs, warm)
	if err != nil {
		return cost, err
	}
	offline, err := c.run(ctx, warm, warm+c.GETs)
	n := float64(c.GETs)
	return Cost{Online: float64(online-few) / n, Offline: float64(offline-few) / n}, err
}

// run starts a sidecar with an empty cache, sends it GETs, first with the link and then without,
// and returns the number of all instructions from its start to its end.
func (c *Counter) run(ctx context.Context, online, offline int) (instructions int64, err error) {
	directory, err := os.MkdirTemp(c.Directory, "run-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(directory)) }()
	api, err := newStandIn()
	if err != nil {
		return 0, err
	}
	defer api.close()
	account := filepath.Join(directory, "account")
	if err := api.account(account); err != nil {
		return 0, err
	}
	s := &sidecar{directory: directory, api: api}
	if err := s.start(ctx, c.valgrind, c.Binary, account); err != nil {
		return 0, err
	}
	defer s.kill()
	err = s.gets(ctx, online, false)
	if err == nil {
		err = s.linkDown(ctx)
	}
	if err == nil {
		err = s.gets(ctx, offline, true)
	}
	if err != nil {
		return 0, fmt.Errorf("%w\n%s", err, s.log())
	}
	return s.stop()
}
