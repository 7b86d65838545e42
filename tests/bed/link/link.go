// Package link is the network link from an edge to a server, which a test can make thin, break and
// repair. A Link forwards in this process, for any user. A Kernel is a link that the kernel makes
// thin, for root.
package link

import (
	"fmt"
	"sync"
	"time"
)

// A Link is a TCP forwarder from an edge to a server, which a test can break as real links break.
// It forwards from any number of listeners, on the host and inside pods, to one target. All methods
// may be called at any time, by several goroutines.
//
// The states exclude each other: Cut, BlackHole, Drop and Restore each end the state before.
// SetShape, Delay and HalfOpen are independent of the state.
type Link struct {
	target string
	host   *endpoint

	mu        sync.Mutex
	changed   chan struct{} // closed and replaced when a state or a shape changes
	state     state
	elapsed   time.Duration // what the clock showed at the last change of state
	since     time.Time     // the last change of state
	up, down  direction
	endpoints []*endpoint
	conns     map[*forward]struct{}
	ended     Stats // Accepted, and packets of connections that have ended
	closed    bool
	running   sync.WaitGroup // accept loops and forwards
}

type state int

const (
	stateUp state = iota
	stateCut
	stateBlackHole
	stateDrop
)

// New returns a Link to target (host:port). It is up and listens on a free loopback port of the
// host.
func New(target string) (*Link, error) {
	l := &Link{target: target, changed: make(chan struct{}), since: time.Now(), conns: map[*forward]struct{}{}}
	listener, err := listenLoopback()
	if err != nil {
		return nil, err
	}
	if l.host, err = l.listen(listener, limitBuffers); err != nil {
		return nil, err
	}
	return l, nil
}

// Address is the host:port at which the Link listens on the host's loopback.
func (l *Link) Address() string { return l.host.listener.Addr().String() }

// Cut makes the target refuse connections: existing ones are reset at both ends, new ones refused.
func (l *Link) Cut() { l.enter(stateCut) }

// BlackHole makes the target silent: existing connections stay open and carry nothing, new ones
// are accepted and get no answer. After Restore all of them continue, as TCP does after an outage.
func (l *Link) BlackHole() { l.enter(stateBlackHole) }

// Drop is BlackHole, but new connections are not even accepted: a client's SYN gets no answer, so
// the client's own connect timeout ends the attempt. After Restore a client that is still trying
// connects with the kernel's next SYN, within seconds. Drop needs a socket filter, which some
// machines refuse to ordinary users: Drop then returns an error and does what BlackHole does.
func (l *Link) Drop() error {
	err := l.tryDrop()
	if err != nil {
		l.enter(stateBlackHole)
	}
	return err
}

func (l *Link) tryDrop() error {
	l.mu.Lock()
	for _, e := range l.endpoints {
		if err := e.control(dropAll); err != nil {
			l.mu.Unlock()
			return fmt.Errorf("drop packets to %s: %w", e.listener.Addr(), err)
		}
	}
	l.mu.Unlock()
	l.enter(stateDrop)
	return nil
}

// Restore returns the link to normal, except for SetShape, Delay and HalfOpen.
func (l *Link) Restore() { l.enter(stateUp) }

// Reset resets all existing connections. The state stays.
func (l *Link) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.resetAll()
}

// Close resets all connections, closes all listeners and waits for the Link's goroutines to end.
func (l *Link) Close() {
	l.mu.Lock()
	l.closed = true
	l.resetAll()
	for _, e := range l.endpoints {
		e.closed = true
		e.listener.Close()
	}
	l.notify()
	l.mu.Unlock()
	l.running.Wait()
}

// enter changes the state, applies it to listeners and connections, and wakes all waiters.
func (l *Link) enter(s state) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.elapsed, l.since = l.now(), time.Now()
	l.state = s
	if s == stateCut {
		l.resetAll()
		l.up.schedule.clear()
		l.down.schedule.clear()
	}
	for _, e := range l.endpoints {
		e.apply(s)
	}
	l.notify()
}

func (l *Link) notify() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Link) resetAll() {
	for f := range l.conns {
		f.abort()
	}
}
