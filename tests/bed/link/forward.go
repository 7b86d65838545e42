package link

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// One read takes up to chunkSize bytes, and chunkQueue chunks may wait for delivery: 8 MiB each
	// way, so that a delay does not limit the throughput on loopback.
	chunkSize  = 32 << 10
	chunkQueue = 256
)

// A forward is one connection through a Link.
type forward struct {
	link   *Link
	ctx    context.Context // of the goroutines of this connection
	cancel context.CancelFunc

	halfOpen bool // guarded by link.mu

	mu      sync.Mutex
	client  *net.TCPConn
	server  *net.TCPConn // nil until dialled
	aborted bool
}

// A chunk is a part of a stream. One without data is the end of the stream.
type chunk struct {
	data []byte
	due  time.Time
}

// carry forwards one accepted connection until it ends.
func (l *Link) carry(client *net.TCPConn) {
	ctx, cancel := context.WithCancel(context.Background())
	f := &forward{link: l, ctx: ctx, cancel: cancel, client: client}
	l.mu.Lock()
	l.stats.Accepted++
	if l.closed || l.state == stateCut {
		f.abort() // accepted just before the cut
	}
	l.conns[f] = struct{}{}
	l.mu.Unlock()
	defer func() {
		f.close()
		l.mu.Lock()
		delete(l.conns, f)
		l.mu.Unlock()
	}()

	if l.wait(ctx, passes) != nil {
		return
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.target)
	if err != nil {
		// The target refuses. The client's connection exists already, so reset it: that is the
		// nearest to a refusal.
		f.abort()
		return
	}
	f.mu.Lock()
	f.server = conn.(*net.TCPConn)
	aborted := f.aborted
	f.mu.Unlock()
	if aborted {
		f.abort()
		return
	}
	var pumps sync.WaitGroup
	pumps.Go(func() { f.pump(f.server, f.client, &l.stats.BytesUp) })
	pumps.Go(func() { f.pump(f.client, f.server, &l.stats.BytesDown) })
	pumps.Wait()
}

// passes reports whether bytes flow in a state.
func passes(s state) bool { return s == stateUp }

// pump carries one direction of a connection. It writes a chunk when the chunk is due and the link
// is up.
func (f *forward) pump(to, from *net.TCPConn, counter *int64) {
	queue := make(chan chunk, chunkQueue)
	var writer sync.WaitGroup
	writer.Go(func() {
		// When writing fails, reading must end too: abort closes both ends.
		for c := range queue {
			if !f.deliver(to, c, counter) {
				f.abort()
				return
			}
		}
	})
	defer writer.Wait()
	defer close(queue)
	for {
		buffer := make([]byte, chunkSize)
		n, err := from.Read(buffer)
		if n > 0 && !f.enqueue(queue, buffer[:n]) {
			return
		}
		if err == io.EOF {
			f.enqueue(queue, nil)
			return
		}
		if err != nil {
			f.abort() // pass a reset on at once
			return
		}
	}
}

func (f *forward) enqueue(queue chan<- chunk, data []byte) bool {
	f.link.mu.Lock()
	due := f.link.due()
	f.link.mu.Unlock()
	select {
	case queue <- chunk{data: data, due: due}:
		return true
	case <-f.ctx.Done():
		return false
	}
}

// deliver writes one chunk and reports whether the stream continues.
func (f *forward) deliver(to *net.TCPConn, c chunk, counter *int64) bool {
	if wait := time.Until(c.due); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-f.ctx.Done():
			return false
		}
	}
	if f.link.wait(f.ctx, passes) != nil {
		return false
	}
	if f.isHalfOpen() {
		<-f.ctx.Done()
		return false
	}
	if c.data == nil {
		return to.CloseWrite() == nil
	}
	if _, err := to.Write(c.data); err != nil {
		return false
	}
	f.link.mu.Lock()
	*counter += int64(len(c.data))
	f.link.mu.Unlock()
	return true
}

// abort ends the connection with a reset at both ends.
func (f *forward) abort() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.aborted = true
	f.cancel()
	for _, conn := range []*net.TCPConn{f.client, f.server} {
		if conn != nil {
			// The connection may be closed already.
			_ = conn.SetLinger(0)
			_ = conn.Close()
		}
	}
}

// close closes the connection after both directions have ended.
func (f *forward) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cancel()
	f.client.Close()
	if f.server != nil {
		f.server.Close()
	}
}
