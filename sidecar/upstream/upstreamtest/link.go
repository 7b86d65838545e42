// Package upstreamtest has a stand-in for an upstream.Upstream, for unit tests of code that sends
// requests over the link. Tests of the link itself use real connections: see package upstream and
// tests/e2e.
package upstreamtest

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"rockpool.dev/sidecar/upstream"
)

// ErrDown is the error of a request when no API server answers.
var ErrDown error = &upstream.LinkError{
	Servers: []upstream.ServerError{{URL: "https://203.0.113.10:6443", Err: errors.New("connection refused")}},
}

// An AnswerFunc takes the place of the API server.
type AnswerFunc func(*http.Request) (*http.Response, error)

// A Link is a link whose state and answers the test sets. Several goroutines may use it at once.
type Link struct {
	mu       sync.Mutex
	online   bool
	changed  chan struct{} // closed and replaced at each change of online
	waiting  int           // callers of WaitOnline that wait
	answer   AnswerFunc
	requests []*http.Request
	wakes    int
	outage   time.Duration
	patience time.Duration // of the latest request
}

// NewLink returns a Link that is online. Its requests fail with ErrDown until SetAnswer.
func NewLink() *Link {
	return &Link{
		online: true, changed: make(chan struct{}),
		answer: func(*http.Request) (*http.Response, error) { return nil, ErrDown },
	}
}

// Cut makes the link offline. Requests still get an answer: not to send any is up to the caller.
func (l *Link) Cut() { l.set(false) }

// Restore makes the link online again.
func (l *Link) Restore() { l.set(true) }

func (l *Link) set(online bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.online = online
	close(l.changed)
	l.changed = make(chan struct{})
}

// Online returns whether the link is online.
func (l *Link) Online() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.online
}

// WaitOnline returns nil once the link is online, or the error of ctx.
func (l *Link) WaitOnline(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting++
	defer func() { l.waiting-- }()
	for !l.online {
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		l.mu.Lock()
		if !l.online && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// Waiting returns how many callers of WaitOnline are waiting.
func (l *Link) Waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting
}

// SetAnswer sets the function that answers requests from now on.
func (l *Link) SetAnswer(answer AnswerFunc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer = answer
}

// Answer returns the function that answers requests, for a test that wraps it in another.
func (l *Link) Answer() AnswerFunc {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answer
}

// Patiently notes the patience. Offline it fails at once if there is some, as if that were over.
func (l *Link) Patiently(r *http.Request, patience time.Duration) (*http.Response, error) {
	l.mu.Lock()
	l.patience = patience
	over := patience > 0 && !l.online
	l.mu.Unlock()
	if over {
		return nil, ErrDown
	}
	return l.RoundTrip(r)
}

// Patience returns how long the latest request was allowed to wait for the link.
func (l *Link) Patience() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.patience
}

// RoundTrip records the request and answers it.
func (l *Link) RoundTrip(r *http.Request) (*http.Response, error) {
	l.mu.Lock()
	l.requests = append(l.requests, r)
	answer := l.answer
	l.mu.Unlock()
	return answer(r)
}

// Requests returns the requests so far, in the order in which they were sent.
func (l *Link) Requests() []*http.Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.requests)
}

// Wake counts that a program has asked while the link was offline.
func (l *Link) Wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wakes++
}

// Wakes returns the number of calls of Wake.
func (l *Link) Wakes() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wakes
}

// SetOutage sets the duration of the last outage.
func (l *Link) SetOutage(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outage = d
}

// Outage returns the duration of the last outage.
func (l *Link) Outage() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.outage
}
