// Package instructions counts the instructions that the sidecar executes for one GET. Times and CPU
// times of a request vary by a half with what else a machine does. The number of instructions
// varies by a few per cent, so that smaller gains and losses show.
//
// Cachegrind, a tool of valgrind, counts them. The sidecar runs under it as it is, between a client
// and a stand-in for the API server that are not counted. Kernel code is not counted either.
// Cachegrind tells the number when the program ends. So the sidecar runs several times, with few
// GETs, with more GETs while the link is up, and with more GETs while it is down: the differences
// are what those GETs cost. (Callgrind could tell it in between, but fails when a signal reaches a
// Go program.)
//
// The recorder writes what comes in 50 ms as one group. How many groups there are for as many GETs
// is left to the machine, so a group is counted apart: in one more run the few GETs have pauses
// between them, and each is a group of its own. The sidecar's metrics tell how many there were.
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
	"time"
)

// ErrMissing means that the machine lacks the program that counts. The wrapping error says which.
var ErrMissing = errors.New("instructions cannot be counted")

// warm is the number of GETs that warm everything up, before the link is cut and after it.
const warm = 300

// paced is how many of them have a pause before them in the run that counts groups, and pause is its
// length: the recorder's delay and some time to write.
const (
	paced = 150
	pause = 80 * time.Millisecond
)

// Cost is what something costs, in instructions.
type Cost struct {
	// Online and Offline are of one GET, without the groups of the recorder.
	Online, Offline float64
	// Group is of one group of the recorder that has one object.
	Group float64
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
	counts   []count
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

// run is what one run of the sidecar was asked for, and what it has cost.
type run struct {
	online, offline int // GETs
	paced           int // of the former
	groups          int64
	instructions    int64
}

// count has the runs with few GETs, with pauses between them, with more GETs while the link is up,
// and with more GETs while it is down.
type count struct{ few, slow, online, offline run }

// Count counts once. It takes the time of four runs, about 45 s on a quiet machine.
func (c *Counter) Count(ctx context.Context) (err error) {
	if err := c.Available(); err != nil {
		return err
	}
	n := count{
		few:     run{online: warm, offline: warm},
		slow:    run{online: warm, offline: warm, paced: paced},
		online:  run{online: warm + c.GETs, offline: warm},
		offline: run{online: warm, offline: warm + c.GETs},
	}
	for _, r := range []*run{&n.few, &n.slow, &n.online, &n.offline} {
		if err := c.run(ctx, r); err != nil {
			return err
		}
	}
	c.counts = append(c.counts, n)
	return nil
}

// Costs is what each count has found. All counts together tell what a group costs, and what the
// sidecar costs apart from the GETs: those vary more.
func (c *Counter) Costs() (all []Cost, err error) {
	var few, slow run
	for _, n := range c.counts {
		few.instructions, few.groups = few.instructions+n.few.instructions, few.groups+n.few.groups
		slow.instructions, slow.groups = slow.instructions+n.slow.instructions, slow.groups+n.slow.groups
	}
	if len(c.counts) == 0 || slow.groups-few.groups < int64(len(c.counts)*paced/3) {
		return nil, fmt.Errorf("GETs with pauses are %d groups of the recorder, and those without are %d: the machine is too busy to count a group", slow.groups, few.groups)
	}
	group := float64(slow.instructions-few.instructions) / float64(slow.groups-few.groups)
	rest := (float64(few.instructions) - group*float64(few.groups)) / float64(len(c.counts))
	of := func(r run) float64 {
		return (float64(r.instructions) - group*float64(r.groups) - rest) / float64(c.GETs)
	}
	for _, n := range c.counts {
		all = append(all, Cost{Online: of(n.online), Offline: of(n.offline), Group: group})
	}
	return all, nil
}

// run starts a sidecar with an empty cache, sends it GETs, first with the link and then without,
// and counts all instructions from its start to its end.
func (c *Counter) run(ctx context.Context, r *run) (err error) {
	directory, err := os.MkdirTemp(c.Directory, "run-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(directory)) }()
	api, err := newStandIn()
	if err != nil {
		return err
	}
	defer api.close()
	account := filepath.Join(directory, "account")
	if err := api.account(account); err != nil {
		return err
	}
	s := &sidecar{directory: directory, api: api}
	if err := s.start(ctx, c.valgrind, c.Binary, account); err != nil {
		return err
	}
	defer s.kill()
	err = s.gets(ctx, r.online-r.paced, 0, false)
	if err == nil {
		err = s.gets(ctx, r.paced, pause, false)
	}
	if err == nil {
		err = s.linkDown(ctx)
	}
	if err == nil {
		err = s.gets(ctx, r.offline, 0, true)
	}
	if err == nil {
		r.groups, err = s.groups(ctx)
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, s.log())
	}
	r.instructions, err = s.stop()
	return err
}
