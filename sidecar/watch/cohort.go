package watch

import (
	"context"
	"errors"
	"sync"
	"time"

	"rockpool.dev/sidecar/api/origin"
	"rockpool.dev/sidecar/relist"
	"rockpool.dev/sidecar/upstream"
)

const (
	// spreadEach is the time for each waiting watch, over which all of them together come
	// back: 20 watches within a second. spreadMost bounds it.
	spreadEach = 50 * time.Millisecond
	spreadMost = 2 * time.Second
	// outagePart is the part of an outage over which watches come back: other pods of the site, and
	// other sites, wait for the same link. spreadOutage bounds it.
	outagePart   = 10
	spreadOutage = 30 * time.Second
	// retryFirst is how much longer a watch waits when the link is said to be up but refuses
	// it. It doubles with each time, up to retryLongest.
	retryFirst   = 500 * time.Millisecond
	retryLongest = 8 * time.Second
)

// cohorts are the watches that have lost their streams, by position.
type cohorts struct {
	random func() float64 // in [0, 1)

	mu    sync.Mutex
	at    map[relist.Position]*cohort
	count int
	asked chan struct{} // closed and replaced when a program asks; nil: nobody waits for that
}

// cohort is the watches that wait at one position. If the API server has forgotten its version,
// one of them finds out for all what they have missed. Another list would cost the link as much
// again. And the first watch that comes back moves the recorded collection, by which alone it is
// known what the others were sent.
type cohort struct {
	position relist.Position
	members  int           // guarded by the lock of cohorts
	turn     chan struct{} // held by the member that uses the fields below
	found    *relist.Difference
	failure  error
}

// join is called by a watch that waits; it must leave.
func (s *cohorts) join(at relist.Position) *cohort {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at == nil {
		s.at = map[relist.Position]*cohort{}
	}
	c := s.at[at]
	if c == nil {
		c = &cohort{position: at, turn: make(chan struct{}, 1)}
		s.at[at] = c
	}
	c.members++
	s.count++
	return c
}

func (s *cohorts) leave(c *cohort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count--
	if c.members--; c.members == 0 {
		delete(s.at, c.position)
	}
}

// delay is how long a watch waits although the link is up. So many watches do not come back in
// one burst after an outage, and a watch that is refused does not try again and again.
func (s *cohorts) delay(failures int, outage time.Duration) time.Duration {
	s.mu.Lock()
	spread := max(min(time.Duration(s.count)*spreadEach, spreadMost), min(outage/outagePart, spreadOutage))
	s.mu.Unlock()
	d := time.Duration(s.random() * float64(spread))
	if failures > 0 {
		d += min(retryFirst<<min(failures-1, 10), retryLongest)
	}
	return d
}

// unanswered reports whether an error says that the API server has not been heard: the link broke,
// or something on the way to it has answered.
func unanswered(err error) bool {
	return upstream.IsLinkError(err) || errors.Is(err, origin.ErrForeign)
}

// hurry lets all waiting watches come back now: their program asks, so it wants the present state.
func (s *cohorts) hurry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked != nil {
		close(s.asked)
		s.asked = nil
	}
}

// hurried gives a channel that hurry closes.
func (s *cohorts) hurried() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked == nil {
		s.asked = make(chan struct{})
	}
	return s.asked
}

// difference gives the changes that the cohort has missed. The first member to ask finds them
// with compare; if the link breaks meanwhile, or that member's client leaves, the next member
// does.
func (c *cohort) difference(ctx context.Context, compare func(context.Context) (*relist.Difference, error)) (*relist.Difference, error) {
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
	case ctx.Err() == nil && !unanswered(err):
		c.failure = err
	}
	return found, err
}
