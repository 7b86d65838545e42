package upstream

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// keepAlive detects that the peer of an idle connection has vanished. It is for HTTP/1.1 upgrades:
// HTTP/2 has its pings.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 2}

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
