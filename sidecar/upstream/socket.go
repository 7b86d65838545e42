package upstream

import (
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// keepAlive finds that the peer of a quiet HTTP/1.1 connection has vanished, such as that of an
// upgrade. HTTP/2 connections have none: a PING asks when somebody needs to know.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}

// userTimeout returns a Control for net.Dialer. With it the kernel ends a connection on which bytes
// or keep-alive probes were not acknowledged for d (TCP_USER_TIMEOUT, tcp(7)). Without it the
// kernel retransmits into a black hole for a quarter of an hour.
func userTimeout(d time.Duration) func(network, address string, raw syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) (err error) {
		controlErr := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
		})
		if controlErr != nil {
			return controlErr
		}
		return err
	}
}

// segments is what the kernel knows of the TCP segments of a connection. Some bring no byte to read:
// those that acknowledge an upload, and those that overtook a lost one. That one is on its way
// again, at the end of a long queue.
type segments struct {
	progress uint64        // counts our segments that arrived, and theirs that came out of order
	ago      time.Duration // since the latest segment
	arrived  bool          // the peer, or a proxy on the way, has acknowledged all of ours
}

// segmentsOf asks the kernel. A connection of another kind than TCP has none.
func segmentsOf(c net.Conn) (s segments) {
	conn, ok := c.(syscall.Conn)
	if !ok {
		return s
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return s
	}
	_ = raw.Control(func(fd uintptr) {
		if i, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			s.progress = uint64(i.Delivered) + uint64(i.Rcv_ooopack)
			s.arrived = i.Unacked == 0 && i.Notsent_bytes == 0
			s.ago = time.Duration(min(i.Last_ack_recv, i.Last_data_recv)) * time.Millisecond
		}
	})
	return s
}

// input looks whether a connection has something to read.
type input struct {
	raw   syscall.RawConn // nil: it is no TCP connection
	look  func(fd uintptr)
	ready bool // found by look
}

func newInput(c net.Conn) *input {
	i := &input{}
	if conn, ok := c.(syscall.Conn); ok {
		i.raw, _ = conn.SyscallConn() // nil: as for another connection, a read tells
	}
	i.look = func(fd uintptr) {
		wanted := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(wanted[:], 0)
		i.ready = n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	}
	return i
}

// has reports whether a TCP connection has bytes to read, or has ended. It reports false for another
// kind of connection. It is for one goroutine.
func (i *input) has() bool {
	if i.raw == nil {
		return false
	}
	i.ready = false
	return i.raw.Control(i.look) != nil || i.ready
}
