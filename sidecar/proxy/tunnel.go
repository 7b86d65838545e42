package proxy

import (
	"context"
	"net"
	"sync"
)

// tunnels are the hijacked connections of one ServeConnect, which http.Server no longer tracks:
// both ends of each tunnel, and the client's end of each connection that was handed over. goproxy
// copies in goroutines of its own, which end when the connections are closed.
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

// dial connects to the target of a tunnel.
func (t *tunnels) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := t.dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return t.add(conn, nil), nil
}

// add tracks a connection until it is closed. early holds the bytes that were already read from it.
func (t *tunnels) add(conn net.Conn, early []byte) *tunnelConn {
	c := &tunnelConn{Conn: conn, early: early, tunnels: t}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conns[c] = struct{}{}
	if t.closed {
		_ = conn.Close() // its owner then calls tunnelConn.Close, which removes it
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

// tunnelConn can be half-closed, which goproxy checks for: one side may have sent everything and
// still receive.
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

// handover is a listener for connections that another listener has accepted.
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
