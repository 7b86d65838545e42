package proxy

import (
	"context"
	"net"
	"sync"
)

// tunnels are the connections of one ServeConnect that http.Server no longer knows: both ends of
// each tunnel, and the client's end of those that were handed over. goproxy copies in goroutines
// of its own, which end when the connections are closed.
type tunnels struct {
	dialer net.Dialer

	mu     sync.Mutex
	conns  map[*tunnelConn]struct{}
	closed bool
	empty  *sync.Cond
}

func newTunnels() *tunnels {
	t := &tunnels{dialer: net.Dialer{Timeout: dialTimeout}, conns: map[*tunnelConn]struct{}{}}
	t.empty = sync.NewCond(&t.mu)
	return t
}

// dial connects to the far end of a tunnel.
func (t *tunnels) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := t.dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return t.add(conn, nil), nil
}

// add tracks a connection until it is closed. early is what was already read from it.
func (t *tunnels) add(conn net.Conn, early []byte) *tunnelConn {
	c := &tunnelConn{Conn: conn, early: early, tunnels: t}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conns[c] = struct{}{}
	if t.closed {
		_ = conn.Close() // its owner notices, and removes it
	}
	return c
}

// drain waits until all connections are closed; when ctx ends it closes them.
func (t *tunnels) drain(ctx context.Context) {
	defer context.AfterFunc(ctx, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.closed = true
		for c := range t.conns {
			_ = c.Conn.Close()
		}
	})()
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.conns) > 0 {
		t.empty.Wait()
	}
}

// tunnelConn can be half-closed, for which goproxy looks: one side may have said all it has to say, and still listen.
type tunnelConn struct {
	net.Conn
	early   []byte // read by one goroutine
	tunnels *tunnels
	once    sync.Once
}

func (c *tunnelConn) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

func (c *tunnelConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

func (c *tunnelConn) CloseRead() error {
	if half, ok := c.Conn.(interface{ CloseRead() error }); ok {
		return half.CloseRead()
	}
	return nil
}

func (c *tunnelConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.tunnels.mu.Lock()
		defer c.tunnels.mu.Unlock()
		delete(c.tunnels.conns, c)
		if len(c.tunnels.conns) == 0 {
			c.tunnels.empty.Broadcast()
		}
	})
	return err
}

// handover is the listener of connections that were accepted elsewhere.
type handover struct {
	address net.Addr
	conns   chan net.Conn
	once    sync.Once
	done    chan struct{}
}

func newHandover(address net.Addr) *handover {
	return &handover{address: address, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (h *handover) push(conn net.Conn) {
	select {
	case h.conns <- conn:
	case <-h.done:
		_ = conn.Close()
	}
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handover) Addr() net.Addr { return h.address }

func (h *handover) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}
