package dispatch

import (
	"context"
	"sync"
	"time"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/upstream"
)

const (
	// spreadEach is the time for each watch that waits, over which all of them together
	// come back: 20 watches within a second. spreadMost bounds it.
	spreadEach = 50 * time.Millisecond
	spreadMost = 2 * time.Second
	// retryFirst is what a watch waits more when it was refused the link that says it is
	// up. It doubles with each time, up to retryLongest.
	retryFirst   = 500 * time.Millisecond
	retryLongest = 8 * time.Second
)

// place is where a watch is: what it reads, for whom, in which form, and up to which
// version. All watches at a place have been sent the same state.
type place struct {
	principal, path, labelSelector, fieldSelector string
	form                                          request.Form
	version                                       string
}

// waiting are the watches that have lost their streams, by their places.
type waiting struct {
	random func() float64 // in [0, 1)

	mu    sync.Mutex
	at    map[place]*company
	count int
}

// company are the watches that wait at one place. If the server has forgotten it, one of
// them finds out for all what they have missed: another list would cost the link as
// much again, and the first to come back moves the recorded collection, by which alone
// it is known what they were sent.
type company struct {
	place   place
	members int           // guarded by the lock of waiting
	turn    chan struct{} // held by the one that looks at the rest
	found   *difference
	failure error
}

// join is called by a watch that waits; it must leave.
func (w *waiting) join(at place) *company {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.at == nil {
		w.at = map[place]*company{}
	}
	c := w.at[at]
	if c == nil {
		c = &company{place: at, turn: make(chan struct{}, 1)}
		w.at[at] = c
	}
	c.members++
	w.count++
	return c
}

func (w *waiting) leave(c *company) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count--
	if c.members--; c.members == 0 {
		delete(w.at, c.place)
	}
}

// delay is how long a watch waits although the link is up, so that many do not come
// back in one burst, and one that does not get through does not try again and again.
func (w *waiting) delay(failures int) time.Duration {
	w.mu.Lock()
	spread := min(time.Duration(w.count)*spreadEach, spreadMost)
	w.mu.Unlock()
	d := time.Duration(w.random() * float64(spread))
	if failures > 0 {
		d += min(retryFirst<<min(failures-1, 10), retryLongest)
	}
	return d
}

// difference gives what the company has missed. The first member to ask finds out with
// compare; if the link breaks meanwhile, or that member's client leaves, so does the next.
func (c *company) difference(ctx context.Context, compare func(context.Context) (*difference, error)) (*difference, error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if c.found != nil || c.failure != nil {
		return c.found, c.failure
	}
	found, err := compare(ctx)
	switch {
	case err == nil:
		c.found = found
	case ctx.Err() == nil && !upstream.IsLinkError(err):
		c.failure = err
	}
	return found, err
}
