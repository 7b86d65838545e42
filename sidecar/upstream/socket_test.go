package upstream

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rockpool.dev/tests/eventually"
)

func TestUnacknowledgedBytesEndAConnection(t *testing.T) {
	var config net.ListenConfig
	config.SetMultipathTCP(false) // its sockets take no filter
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dialer := net.Dialer{Control: userTimeout(300 * time.Millisecond)}
	conn, err := dialer.DialContext(context.Background(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	far, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	ignoreAll(t, far)
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() { _, err := conn.Read(make([]byte, 1)); failed <- err }()
	if err := eventually.Receive(t, "the connection to end", failed); !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("it ended with %v", err)
	}
}

// ignoreAll drops all bytes that arrive before they are acknowledged.
func ignoreAll(t *testing.T, conn net.Conn) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	program := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	controlErr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &program[0]})
	})
	if err := errors.Join(controlErr, err); err != nil {
		t.Skipf("this machine has no socket filters for ordinary users: %v", err)
	}
}

func TestConnectionsHaveKeepAliveAndUserTimeout(t *testing.T) {
	server := newServer(t, true, nil)
	r := newHarness(t, fastOptions(server.asServer()))
	conn, err := r.address(0).dial(t.Context(), "tcp", server.link.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := connOf(conn).Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]struct{ level, option, want int }{
		"keep-alive probes":        {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		"silence before the first": {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 10},
		"user timeout, in ms":      {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 15000},
	} {
		var got int
		_ = raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), o.level, o.option) })
		if got != o.want || err != nil {
			t.Errorf("%s: %d, %v, want %d", name, got, err, o.want)
		}
	}
}
