package upstream

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// keepAlive finds the silent end of a connection over which nothing is sent: an HTTP/1.1 upgrade that is idle, as
// HTTP/2 has its pings.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: pingAfter, Interval: pingTimeout, Count: 2}

// giveUpAfter returns a net.Dialer's Control that lets the kernel end a connection on which bytes, or keep-alive probes, were
// not acknowledged for so long (TCP_USER_TIMEOUT, tcp(7)). Without it what was sent into a black hole is sent again for a quarter of an hour.
func giveUpAfter(d time.Duration) func(network, address string, raw syscall.RawConn) error {
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
