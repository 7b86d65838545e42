package link

import (
	"math/rand/v2"
	"time"
)

// Strand makes the connections that there are silent for good, without a reset, as when a NAT gateway between has been
// restarted or the far machine has lost its memory: half-open connections. New ones are carried as ever. They end with
// Cut, Reset or Close.
func (l *Link) Strand() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for f := range l.conns {
		f.stranded = true
	}
}

// Stall holds each piece of a stream up for d, with the given probability, and with it all that is behind it in its direction. So a
// TCP connection looks from above that has lost a segment, and sends it again after its retransmission timeout. It stands for
// lossy links where the kernel has no netem, and it is not the same: no packet is lost, so windows do not
// shrink, no SYN is sent twice, and timeouts do not grow. A probability of zero ends it.
func (l *Link) Stall(probability float64, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stallProbability, l.stall = probability, d
}

// due is when a piece that was read now is to be delivered. The lock is held.
func (l *Link) due() time.Time {
	due := time.Now().Add(l.delay)
	if l.stallProbability > 0 && rand.Float64() < l.stallProbability {
		due = due.Add(l.stall)
	}
	return due
}

// silent tells whether the connection is stranded.
func (f *forward) silent() bool {
	f.link.mu.Lock()
	defer f.link.mu.Unlock()
	return f.stranded
}
