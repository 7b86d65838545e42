package link

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// chunkSize is how much one read takes in a direction without a Rate.
const chunkSize = 32 << 10

// A forward is one connection through a Link.
type forward struct {
	link   *Link
	ctx    context.Context // of the goroutines of this connection
	cancel context.CancelFunc

	halfOpen bool // guarded by link.mu

	mu                     sync.Mutex // may be taken while holding link.mu, not the other way round
	client                 *net.TCPConn
	server                 *net.TCPConn // nil until dialled
	ended                  bool         // both are closed, or are being closed
	packetsUp, packetsDown int64        // at the last count
}

// A stream is one direction of a forward.
type stream struct {
	forward   *forward
	direction *direction
	to, from  *net.TCPConn

	// Guarded by link.mu:
	chunks []chunk // on the way
	bytes  int     // their sum

	entered, delivered chan struct{} // capacity 1: a chunk was added to, or taken from chunks
}

// A chunk is a part of a stream. One without data is the end of the stream.
type chunk struct {
	data    []byte
	passage *passage
}

// carry forwards one accepted connection until it ends.
func (l *Link) carry(client *net.TCPConn) {
	ctx, cancel := context.WithCancel(context.Background())
	f := &forward{link: l, ctx: ctx, cancel: cancel, client: client}
	// The Link's own probes are not on a real link.
	_ = client.SetKeepAlive(false)
	l.mu.Lock()
	l.ended.Accepted++
	if l.closed || l.state == stateCut {
		f.abort() // accepted just before the cut
	}
	l.conns[f] = struct{}{}
	l.mu.Unlock()
	defer func() {
		f.close()
		l.mu.Lock()
		delete(l.conns, f)
		l.ended.PacketsUp += f.packetsUp
		l.ended.PacketsDown += f.packetsDown
		l.mu.Unlock()
	}()

	if f.pass(&l.up) != nil { // the client's SYN
		return
	}
	dialer := net.Dialer{KeepAlive: -1, Control: limitDialed}
	dialer.SetMultipathTCP(false)
	conn, refused := dialer.DialContext(ctx, "tcp", l.target)
	if refused == nil && !f.setServer(conn.(*net.TCPConn)) {
		return
	}
	if f.pass(&l.down) != nil { // the answer to it
		return
	}
	if refused != nil {
		// The client's connection exists already, so reset it: that is the nearest to a refusal.
		f.abort()
		return
	}
	var streams sync.WaitGroup
	streams.Go(newStream(f, &l.up, f.server, f.client).run)
	streams.Go(newStream(f, &l.down, f.client, f.server).run)
	streams.Wait()
}

// limitDialed limits the buffers of a connection before it is dialled.
func limitDialed(_, _ string, conn syscall.RawConn) error {
	var limited error
	err := conn.Control(func(fd uintptr) { limited = limitBuffers(int(fd)) })
	return errors.Join(err, limited)
}

// setServer sets the connection to the server. It reports whether the forward goes on.
func (f *forward) setServer(conn *net.TCPConn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.server = conn
	if f.ended {
		_ = conn.SetLinger(0)
		conn.Close()
	}
	return !f.ended
}

func newStream(f *forward, d *direction, to, from *net.TCPConn) *stream {
	return &stream{
		forward: f, direction: d, to: to, from: from,
		entered: make(chan struct{}, 1), delivered: make(chan struct{}, 1),
	}
}

// run carries a direction of a connection until its end, or until the connection is aborted.
func (s *stream) run() {
	var delivery sync.WaitGroup
	delivery.Go(func() {
		// When writing fails, reading must end too: abort closes both ends.
		if !s.deliver() {
			s.forward.abort()
		}
	})
	defer delivery.Wait()
	buffer := make([]byte, chunkSize)
	for {
		limit, ok := s.mayRead()
		if !ok {
			return
		}
		n, err := s.from.Read(buffer[:limit])
		if n > 0 {
			s.enter(bytes.Clone(buffer[:n]))
		}
		if err == io.EOF {
			s.enter(nil)
			return
		}
		if err != nil {
			s.forward.abort() // pass a reset on at once
			return
		}
	}
}

// mayRead waits until the stream may send more, and returns how much the next read takes at most.
// It reports whether the stream continues.
func (s *stream) mayRead() (limit int, ok bool) {
	err := s.forward.wait(s.delivered, func(now time.Duration) (time.Duration, bool) {
		schedule := &s.direction.schedule
		limit = chunkSize
		if schedule.shape.Rate > 0 {
			limit = segmentSize
		}
		return schedule.full(now), s.bytes >= schedule.shape.window()
	})
	return limit, err == nil
}

// enter puts a chunk on its way.
func (s *stream) enter(data []byte) {
	l := s.forward.link
	l.mu.Lock()
	s.chunks = append(s.chunks, chunk{data: data, passage: l.send(s.direction, len(data))})
	s.bytes += len(data)
	l.mu.Unlock()
	signal(s.entered)
}

// deliver writes the chunks as they arrive. It reports whether that was the whole stream.
func (s *stream) deliver() bool {
	l := s.forward.link
	for {
		var next chunk
		err := s.forward.wait(s.entered, func(now time.Duration) (time.Duration, bool) {
			if len(s.chunks) == 0 {
				return 0, true
			}
			next = s.chunks[0]
			return next.passage.due() - now, false
		})
		if err != nil {
			return false
		}
		if next.data == nil {
			return s.to.CloseWrite() == nil
		}
		if _, err := s.to.Write(next.data); err != nil {
			return false
		}
		l.mu.Lock()
		s.chunks[0] = chunk{}
		s.chunks = s.chunks[1:]
		s.bytes -= len(next.data)
		s.direction.bytes += int64(len(next.data))
		l.mu.Unlock()
		signal(s.delivered)
	}
}

// signal sends to a channel of capacity 1, unless a signal waits there.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// abort ends the connection with a reset at both ends.
func (f *forward) abort() { f.end(true) }

// close closes the connection after both directions have ended.
func (f *forward) close() { f.end(false) }

func (f *forward) end(reset bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cancel()
	if f.ended {
		return
	}
	f.packets()
	f.ended = true
	for _, conn := range []*net.TCPConn{f.client, f.server} {
		if conn == nil {
			continue
		}
		if reset {
			_ = conn.SetLinger(0)
		}
		conn.Close()
	}
}
