package model

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// history is what happens: operations, and the faults of the machine. It can be run again, and with
// operations left out.
type history struct {
	Plain     bool  // no faults: what was told must be answered
	Crowded   bool  // many requests for one object are under way together
	Lenient   bool  // nothing must be answered
	Save      bool  // programs list before each cut, with online.reads=save
	Opaque    bool  // resourceVersions are no numbers
	DiskSize  int64 // of the database in bytes; 0: enough
	QueueSize int   // bytes that may wait for the store; 0: enough
	Padding   int   // bytes that each object has for nothing
	Programs  int
	Kinds     []*kind // of all objects
	Focus     scope   // what most requests are for
	Form      form    // of most requests
	Hot       key     // which most operations are about
	Ops       []op
}

// op is one operation. Each makes sense, or does nothing, whatever is before it.
type op struct {
	action action
	who    int // the program
	slot   int // of its watches, or of its requests under way
	n      int // how much, how many or which; see the actions
	key    key
	ask    ask
}

// slow is added to n of isAnswered if the answer has a long way.
const slow = 4

// action is what an operation does.
type action int

// The actions.
const (
	changes    action = iota // somebody else changes an object; n chooses how
	asks                     // a program asks; n: lag in revisions, or further pages of a list
	sends                    // a program sends a request
	isAnswered               // the server answers it; n: lag in revisions; 4 more: the answer is slow to come
	reads                    // an answer that was slow comes; else the program reads the rest, or sends for the next page
	breaksOff                // the answer breaks off
	watches                  // a program opens a watch; n: lag in revisions
	rewatches                // a watch is opened again, from where it was
	unwatches                // a watch is closed
	expires                  // the server has forgotten where a watch was
	delivers                 // n events reach their program
	bookmarks                // a bookmark reaches its program, after all events
	flushes                  // the recorder writes
	heals                    // the sidecar lists what it takes for stale
	cuts                     // the link is cut, and the answers are judged; n chooses the forms
	holds                    // the disk hangs until the next flush
	crashes                  // the sidecar is killed and starts again
	jumps                    // the wall clock jumps by n minutes
	allows                   // a program's access is taken away, or given back if n is odd; n/2 odd: only to lists
	serves                   // a resource is not served any more, or again if n is odd
	restores                 // the cluster is restored to n revisions ago
	actionCount
)

func (o op) String() string {
	who := fmt.Sprintf("program %d", o.who)
	switch o.action {
	case changes:
		return fmt.Sprintf("somebody changes %s (%d)", o.key, o.n)
	case asks:
		return fmt.Sprintf("%s: %s (n=%d)", who, &o.ask, o.n)
	case sends:
		return fmt.Sprintf("%s sends request %d: %s", who, o.slot, &o.ask)
	case watches:
		return fmt.Sprintf("%s opens watch %d: %s (lag %d)", who, o.slot, &o.ask, o.n)
	case isAnswered:
		return fmt.Sprintf("%s: request %d is answered (lag %d)%s", who, o.slot, o.n%slow, [...]string{"", ", slowly"}[o.n/slow])
	case reads:
		return fmt.Sprintf("%s reads the answer to request %d", who, o.slot)
	case breaksOff:
		return fmt.Sprintf("%s: the answer to request %d breaks off", who, o.slot)
	case rewatches:
		return fmt.Sprintf("%s opens watch %d again from where it was", who, o.slot)
	case unwatches:
		return fmt.Sprintf("%s closes watch %d", who, o.slot)
	case expires:
		return fmt.Sprintf("%s: the position of watch %d has expired", who, o.slot)
	case delivers:
		return fmt.Sprintf("%s gets up to %d events of watch %d", who, o.n, o.slot)
	case bookmarks:
		return fmt.Sprintf("%s gets a bookmark of watch %d", who, o.slot)
	case allows:
		return fmt.Sprintf("%s: access to %s%s is %s", who, [...]string{"", "lists of "}[o.n/2%2], o.key.kind.resource, [...]string{"taken away", "given"}[o.n%2])
	case serves:
		return fmt.Sprintf("%s are %s served", o.key.kind.resource, [...]string{"no longer", "again"}[o.n%2])
	case restores:
		return fmt.Sprintf("the cluster is restored to %d revisions ago", o.n)
	case jumps:
		return fmt.Sprintf("the wall clock jumps by %d minutes", o.n)
	}
	return map[action]string{
		flushes: "the recorder writes", heals: "the sidecar lists what is stale", cuts: "the link is cut for a moment",
		holds: "the disk hangs until the next flush", crashes: "the sidecar is killed and starts again",
	}[o.action]
}

// String gives the history in readable words.
func (h *history) String() string {
	var out strings.Builder
	var modes []string
	for name, on := range map[string]bool{
		"no faults": h.Plain, "opaque versions": h.Opaque, fmt.Sprintf("objects of %d bytes", h.Padding): h.Padding > 0,
		fmt.Sprintf("a database of %d bytes", h.DiskSize): h.DiskSize > 0, fmt.Sprintf("a queue of %d bytes", h.QueueSize): h.QueueSize > 0,
	} {
		if on {
			modes = append(modes, name)
		}
	}
	slices.Sort(modes)
	if len(modes) > 0 {
		fmt.Fprintf(&out, "  with %s:\n", strings.Join(modes, ", "))
	}
	for i, o := range h.Ops {
		fmt.Fprintf(&out, "  %2d %s\n", i+1, o)
	}
	return out.String()
}

// run runs a history and gives the first violation of the contract.
func (h *history) run(offline answerer) (counts counts, err error) {
	w, err := newWorld(h, offline)
	if err != nil {
		return counts, err
	}
	for _, o := range h.Ops {
		w.tick++
		w.wall.Add(7)
		if err = w.step(o); err != nil {
			break
		}
	}
	if closed := w.close(); err == nil {
		err = closed
	}
	return w.counts, err
}

// step does one operation.
func (w *world) step(o op) error {
	p := w.programs[o.who%len(w.programs)]
	f := &p.flights[o.slot]
	switch o.action {
	case changes:
		w.server.change(o.key, o.n)
	case asks:
		return w.do(p, o.ask, o.n, o.n)
	case sends:
		w.breakOff(f)
		*f = w.send(p, o.ask)
	case isAnswered:
		if *f != nil && (*f).reply == nil {
			w.answer(p, *f, o.n%slow)
			if o.n < slow {
				w.arrive(*f)
			}
		}
	case reads:
		return w.read(p, f)
	case breaksOff:
		w.breakOff(f)
	case watches:
		return w.watch(p, o.slot, o.ask, o.n)
	case rewatches:
		return w.rewatch(p, o.slot)
	case unwatches:
		w.unwatch(p, o.slot)
	case expires:
		return w.expire(p, o.slot)
	case delivers:
		return w.deliver(p, o.slot, o.n, false)
	case bookmarks:
		return w.deliver(p, o.slot, 1000, true)
	case flushes:
		return w.flush()
	case heals:
		return w.heal()
	case cuts:
		return w.cut(o.n)
	case holds:
		w.hold()
	case crashes:
		return w.crash()
	case jumps:
		w.wall.Add(int64(o.n) * 60_000)
	case allows:
		w.server.allow(access{p.principal, o.key.kind, o.n/2%2 == 1}, o.n%2 == 1)
	case serves:
		w.serverEndsWatches(o.key.kind)
		w.server.serve(o.key.kind, o.n%2 == 1)
	case restores:
		w.serverEndsWatches(nil)
		if w.history.Save { // the restore takes a while; see live.isRecent
			if err := w.flush(); err != nil {
				return err
			}
			w.wall.Add((10 * time.Minute).Milliseconds())
		}
		w.server.restore(o.n)
	}
	return nil
}
