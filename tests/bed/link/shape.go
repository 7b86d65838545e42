package link

import (
	"context"
	"math/rand/v2"
	"net"
	"time"
)

// SetShape sets the rate, queue, round trip and loss towards the target (up) and towards the
// clients (down), for open and for new connections. Two zero values end all of it.
//
// A new connection costs a round trip, through both queues. The Link cannot delay the client's
// connect, which the kernel completes at once. Instead it holds the first bytes of the client
// until the SYN would have gone up and the answer to it come down.
//
// Besides the queue, the sockets of the Link buffer at most 16 KiB of each direction of a
// connection on either side. The buffer before the queue fills when the queue is full, and then
// holds back the sender. The buffer after the queue fills only if the receiver does not read. The
// sender's own kernel buffers some hundred KiB of bulk, as before a real link, and more if the
// connection was faster earlier. Bytes of a connection that has ended stay in the queue; Cut
// empties it. A reset overtakes the bytes before it.
//
// Nothing simulates slow start, so a queue that the kernel's TCP would fill and drain in turns is
// always full. Acknowledgements take nothing of the rate of the other direction.
func (l *Link) SetShape(up, down Shape) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.setShape(up, down)
}

func (l *Link) setShape(up, down Shape) {
	now := l.now()
	l.up.schedule.reshape(now, up)
	l.down.schedule.reshape(now, down)
	l.notify()
}

// Delay sets the round trip of both directions to 2d, and leaves the rest of their shapes. Bytes
// arrive d after they were sent, and the throughput stays. Zero ends the delay.
func (l *Link) Delay(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	up, down := l.up.schedule.shape, l.down.schedule.shape
	up.RoundTrip, down.RoundTrip = 2*d, 2*d
	l.setShape(up, down)
}

// A direction of a Link. The fields are guarded by link.mu.
type direction struct {
	schedule schedule
	bytes    int64 // delivered
}

// now returns the time on the Link's clock, which stands still while the Link does not carry
// bytes. So all that is in the queue and on the way stays there. The caller holds the lock.
func (l *Link) now() time.Duration {
	if l.state != stateUp {
		return l.elapsed
	}
	return l.elapsed + time.Since(l.since)
}

// send puts size bytes of a connection into a direction, and returns their passage. The caller
// holds the lock.
func (l *Link) send(d *direction, size int) *passage {
	lost := d.schedule.shape.Loss > 0 && rand.Float64() < d.schedule.shape.Loss
	return d.schedule.enter(l.now(), size, lost)
}

// pass carries one packet without data over a direction.
func (f *forward) pass(d *direction) error {
	f.link.mu.Lock()
	p := f.link.send(d, 0)
	f.link.mu.Unlock()
	return f.arrive(p)
}

// arrive waits until a chunk arrives.
func (f *forward) arrive(p *passage) error {
	return f.wait(nil, func(now time.Duration) (time.Duration, bool) { return p.due() - now, false })
}

// wait waits until the Link carries the bytes of the connection and needs returns no more waiting:
// neither a time, nor that it is blocked until something is sent to wake. needs runs under the
// lock. wait fails when the connection or the Link has ended.
func (f *forward) wait(wake <-chan struct{}, needs func(now time.Duration) (rest time.Duration, blocked bool)) error {
	l := f.link
	for {
		l.mu.Lock()
		rest, blocked := needs(l.now())
		stopped := l.state != stateUp || f.halfOpen
		closed, changed := l.closed, l.changed
		l.mu.Unlock()
		if closed {
			return net.ErrClosed
		}
		if rest <= 0 && !blocked && !stopped {
			return f.ctx.Err()
		}
		if blocked || stopped {
			rest = 0
		}
		if err := sleep(f.ctx, rest, changed, wake); err != nil {
			return err
		}
	}
}

// sleep waits until changed is closed, wake receives, or d has passed if it is positive. It fails
// when ctx ends.
func sleep(ctx context.Context, d time.Duration, changed, wake <-chan struct{}) error {
	var after <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		after = timer.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-after:
	case <-changed:
	case <-wake:
	}
	return nil
}
