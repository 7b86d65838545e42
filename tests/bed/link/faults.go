package link

import (
	"math/rand/v2"
	"time"
)

// HalfOpen makes all existing connections silent for good, without a reset, as when a NAT gateway
// or the server has restarted and forgotten them. New connections are not affected. Cut, Reset and
// Close end half-open connections.
func (l *Link) HalfOpen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for f := range l.conns {
		f.halfOpen = true
	}
}

// Stall delays each chunk of a stream by d, with the given probability, and all chunks after it in
// that direction too. To its users, a TCP connection that retransmits a lost segment after its
// timeout looks the same. It simulates a lossy link where the kernel has no netem, but not exactly:
// no packet is lost, so windows do not shrink, SYNs are not repeated, and timeouts do not grow.
// A probability of zero ends it.
func (l *Link) Stall(probability float64, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stallProbability, l.stall = probability, d
}

// due returns when to deliver a chunk that was read now. The caller holds the lock.
func (l *Link) due() time.Time {
	due := time.Now().Add(l.delay)
	if l.stallProbability > 0 && rand.Float64() < l.stallProbability {
		due = due.Add(l.stall)
	}
	return due
}

// isHalfOpen reports whether HalfOpen has silenced the connection.
func (f *forward) isHalfOpen() bool {
	f.link.mu.Lock()
	defer f.link.mu.Unlock()
	return f.halfOpen
}
