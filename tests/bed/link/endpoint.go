package link

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"rockpool.dev/tests/bed/freeport"
)

// bufferSize is that of each socket buffer of the Link. The kernel doubles it for its overhead.
const bufferSize = 8 << 10

// An endpoint is one listener of a Link.
type endpoint struct {
	link     *Link
	listener *net.TCPListener

	// Guarded by link.mu:
	closed bool
	down   bool // the socket is not listening
}

// Listen makes the Link accept connections at a further address (host:port) of this host. Clients
// take it for the server's address.
func (l *Link) Listen(ctx context.Context, address string) error {
	// Go's listeners are MPTCP by default, whose sockets take no filter.
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	_, err = l.listen(listener.(*net.TCPListener), limitBuffers)
	return err
}

// AcceptFrom makes the Link accept connections from a further listener, for example one in the
// network namespace of a pod. The Link owns the listener. remove closes it; the connections that
// it has accepted stay open.
func (l *Link) AcceptFrom(listener *net.TCPListener) (remove func(), err error) {
	e, err := l.listen(listener, limitBuffers)
	if err != nil {
		return nil, err
	}
	return e.close, nil
}

// listen adds a listener, which the Link owns from now on. Its connections inherit the options
// that prepare sets.
func (l *Link) listen(listener *net.TCPListener, prepare func(socket int) error) (*endpoint, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		listener.Close()
		return nil, net.ErrClosed
	}
	e := &endpoint{link: l, listener: listener}
	if err := e.control(prepare); err != nil {
		listener.Close()
		return nil, fmt.Errorf("limit buffers of %s: %w", listener.Addr(), err)
	}
	l.endpoints = append(l.endpoints, e)
	e.apply(l.state)
	l.running.Go(e.accept)
	return e, nil
}

// close closes the listener and removes the endpoint from its Link. Its connections stay open.
func (e *endpoint) close() {
	l := e.link
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, other := range l.endpoints {
		if other == e {
			l.endpoints = append(l.endpoints[:i:i], l.endpoints[i+1:]...)
			break
		}
	}
	e.closed = true
	e.listener.Close()
	l.notify()
}

// accept accepts connections until the listener is closed.
func (e *endpoint) accept() {
	l := e.link
	for {
		conn, err := e.listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Cut shuts the socket down, which makes Accept fail (EINVAL). Call it again when the
			// socket listens again.
			l.mu.Lock()
			changed, down, closed := l.changed, l.state == stateCut, e.closed
			l.mu.Unlock()
			if closed {
				return
			}
			if down {
				<-changed
			}
			continue
		}
		l.running.Go(func() { l.carry(conn) })
	}
}

// apply puts the listening socket into the given state. The socket stays bound all the time, so
// no other process can get its port.
func (e *endpoint) apply(s state) {
	err := e.control(func(socket int) error { return e.applySocket(socket, s) })
	if err != nil {
		// These calls work for any user on any kernel of the last ten years, except for the socket
		// filter, which Drop has tried before.
		panic(fmt.Sprintf("link listener %s: %v", e.listener.Addr(), err))
	}
}

// control runs f on the listening socket, if that is still open.
func (e *endpoint) control(f func(socket int) error) error {
	raw, err := e.listener.SyscallConn()
	if err != nil {
		return nil // closed
	}
	var result error
	err = raw.Control(func(fd uintptr) { result = f(int(fd)) })
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return errors.Join(err, result)
}

func (e *endpoint) applySocket(socket int, s state) error {
	if s == stateDrop {
		if err := dropAll(socket); err != nil {
			return fmt.Errorf("attach filter: %w", err)
		}
	} else if err := unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("detach filter: %w", err)
	}
	if s == stateCut {
		// shutdown(2) of a listening socket takes it out of the listening state: the kernel
		// refuses connections, and listen(2) undoes that. A second shutdown(2) would mark the
		// socket, and all connections that it accepts later, as shut down for good.
		if e.down {
			return nil
		}
		if err := unix.Shutdown(socket, unix.SHUT_RD); err != nil {
			return fmt.Errorf("stop listening: %w", err)
		}
		e.down = true
		return nil
	}
	e.down = false
	if err := unix.Listen(socket, unix.SOMAXCONN); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return nil
}

// limitBuffers makes a socket, before it connects or listens, one of a link with an MTU of 1500
// bytes, and its buffers small: bytes then wait in the Link's queue and at their sender. The size
// of packets bounds the sender's buffer too, whose first size on loopback is 2.5 MiB otherwise.
func limitBuffers(socket int) error {
	const timestamps = 12 // bytes of the option in each packet
	return errors.Join(
		unix.SetsockoptInt(socket, unix.IPPROTO_TCP, unix.TCP_MAXSEG, segmentSize+timestamps),
		unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUF, bufferSize),
		unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_SNDBUF, bufferSize),
	)
}

// dropAll attaches a socket filter that drops every packet, SYNs first of all.
func dropAll(socket int) error {
	program := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	return unix.SetsockoptSockFprog(socket, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &program[0]})
}

// listenLoopback listens on a free loopback port, which it binds by number: a socket that leaves
// the listening state (see applySocket) loses a port that the kernel has chosen for it.
func listenLoopback() (*net.TCPListener, error) {
	for attempt := 0; ; attempt++ {
		address, err := freeport.Address()
		if err != nil {
			return nil, err
		}
		// Go's listeners are MPTCP by default, whose sockets take no filter.
		var config net.ListenConfig
		config.SetMultipathTCP(false)
		listener, err := config.Listen(context.Background(), "tcp4", address)
		if err == nil {
			return listener.(*net.TCPListener), nil
		}
		if attempt == 10 {
			return nil, err
		}
	}
}
