package upstream

import (
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

// lastSegment returns how long ago the kernel got a TCP segment of a connection. Segments come
// without bytes to read while an upload is acknowledged, and while a lost segment is on its way
// again behind a long queue. False: the kernel does not say.
func lastSegment(c net.Conn) (time.Duration, bool) {
	conn, ok := c.(syscall.Conn)
	if !ok {
		return 0, false
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, false
	}
	var info *unix.TCPInfo
	controlErr := raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	if controlErr != nil || err != nil {
		return 0, false
	}
	return time.Duration(min(info.Last_ack_recv, info.Last_data_recv)) * time.Millisecond, true
}
