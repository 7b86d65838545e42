package link

import "time"

const (
	// DefaultQueue is the queue of a Shape with a Rate and without a Queue.
	DefaultQueue = 64 << 10

	// segmentSize is the payload of a full TCP packet on a link with an MTU of 1500 bytes, and
	// headerSize that of its IPv4 and TCP headers with timestamps.
	segmentSize = 1448
	headerSize  = 52

	// minRetransmit is the least time after which TCP sends a lost packet again.
	minRetransmit = 200 * time.Millisecond
)

// A Shape describes one direction of a Link. Its zero value delivers all bytes at once.
type Shape struct {
	// Rate is in bytes per second, headers of IP and TCP included. 0 means unlimited. All
	// connections of the Link share it: their bytes pass in the order in which they were sent.
	Rate int
	// Queue is how many bytes wait at the bottleneck, headers included. A sender that finds more
	// than that waits, as TCP makes it. 0 means DefaultQueue; without a Rate nothing queues.
	Queue int
	// RoundTrip is the time without queueing from sending a byte until its acknowledgement
	// arrives. Half of it is the delay of this direction.
	RoundTrip time.Duration
	// Loss is the part of the chunks, from 0 to 1, that are lost once. The bytes arrive late by
	// 200 ms or 1.5 RoundTrip, whichever is longer, as when TCP sends a packet again. Later bytes
	// of the same connection wait for them, those of other connections do not. A chunk is a packet
	// where there is a Rate, else what one read returns. No loss makes a sender slower.
	Loss float64
}

// queue is the length of the queue in bytes.
func (s Shape) queue() int {
	if s.Queue == 0 {
		return DefaultQueue
	}
	return s.Queue
}

// retransmit is how late a lost chunk arrives.
func (s Shape) retransmit() time.Duration { return max(minRetransmit, s.RoundTrip*3/2) }

// window is how many bytes of one connection may be on the way in this direction, its receiver
// included if that does not read. Without a Rate it is large, so that a delay does not limit the
// throughput. With a Rate it is what the queue and the delay hold, and 64 KiB for the receiver.
func (s Shape) window() int {
	const unlimited = 8 << 20
	if s.Rate == 0 {
		return unlimited
	}
	flight := s.RoundTrip
	if s.Loss > 0 {
		flight += s.retransmit()
	}
	return min(unlimited, s.queue()+int(float64(s.Rate)*flight.Seconds())+64<<10)
}

// A schedule decides when bytes pass one direction of a Link. It is a token bucket of Rate whose
// burst is one packet, a first-in-first-out queue before it, and a delay after it. It does no I/O
// and has no clock: callers pass the time, which never goes back.
type schedule struct {
	shape Shape
	free  time.Duration // when the bottleneck has sent all that is in the queue
	queue []*passage    // those that may not have left the bottleneck, in order
}

// A passage is that of one chunk.
type passage struct {
	departs time.Duration // from the bottleneck
	flight  time.Duration // from the bottleneck to the receiver
}

// due is when the chunk arrives.
func (p *passage) due() time.Duration { return p.departs + p.flight }

// enter puts a chunk of size bytes at the end of the queue. A lost one arrives late.
func (s *schedule) enter(now time.Duration, size int, lost bool) *passage {
	s.leave(now)
	p := &passage{departs: now, flight: s.shape.RoundTrip / 2}
	if lost {
		p.flight += s.shape.retransmit()
	}
	if s.shape.Rate > 0 {
		s.free = max(s.free, now) + s.transmission(size)
		p.departs = s.free
		s.queue = append(s.queue, p)
	}
	return p
}

// transmission is how long the bottleneck takes for size bytes of payload.
func (s *schedule) transmission(size int) time.Duration {
	packets := max(1, (size+segmentSize-1)/segmentSize)
	return time.Duration(float64(size+packets*headerSize) / float64(s.shape.Rate) * float64(time.Second))
}

// leave forgets the chunks that have left the bottleneck.
func (s *schedule) leave(now time.Duration) {
	n := 0
	for n < len(s.queue) && s.queue[n].departs <= now {
		n++
	}
	s.queue = s.queue[n:]
}

// full returns how long a sender has to wait until the queue is not longer than it may be.
func (s *schedule) full(now time.Duration) time.Duration {
	if s.shape.Rate == 0 {
		return 0
	}
	drain := float64(s.shape.queue()) / float64(s.shape.Rate) * float64(time.Second)
	return max(0, s.free-now-time.Duration(drain))
}

// reshape changes the shape. Chunks in the queue leave it at the new rate. The delay of each chunk
// stays that of the time when it was sent.
func (s *schedule) reshape(now time.Duration, shape Shape) {
	s.leave(now)
	scale := 0.0
	if shape.Rate > 0 {
		scale = float64(s.shape.Rate) / float64(shape.Rate)
	}
	stretch := func(t time.Duration) time.Duration {
		return now + time.Duration(float64(max(0, t-now))*scale)
	}
	for _, p := range s.queue {
		p.departs = stretch(p.departs)
	}
	s.free = stretch(s.free)
	s.shape = shape
}

// clear empties the queue.
func (s *schedule) clear() { *s = schedule{shape: s.shape} }
