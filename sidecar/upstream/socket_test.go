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
	t.Parallel()
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

func TestOptionsOfConnections(t *testing.T) {
	type option struct{ level, name, want int }
	for _, v := range []struct {
		name     string
		protocol string
		want     map[string]option
	}{
		{"HTTP/2 sends nothing by itself", "h2", map[string]option{
			"keep-alive probes":  {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0},
			"user timeout in ms": {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 60000},
		}},
		{"HTTP/1.1 has keep-alive probes", "http/1.1", map[string]option{
			"keep-alive probes":        {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			"silence before the first": {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 30},
			"user timeout in ms":       {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 60000},
		}},
	} {
		t.Run(v.name, func(t *testing.T) {
			r := newHarness(t, fastOptions(newServer(t, true, nil).asServer()))
			conn, err := r.address(0).dial(t.Context(), newDialing(time.Now()), v.protocol)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			raw, err := conn.socket.Conn.(*net.TCPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			for name, o := range v.want {
				var got int
				_ = raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), o.level, o.name) })
				if got != o.want || err != nil {
					t.Errorf("%s: %d, %v, want %d", name, got, err, o.want)
				}
			}
		})
	}
}

// TestAnAcknowledgementIsProgress: while an upload is acknowledged, the peer is there.
func TestAnAcknowledgementIsProgress(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var before segments
	eventually.True(t, "a pause", func() bool {
		before = segmentsOf(conn)
		return before.ago >= 250*time.Millisecond
	})
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the acknowledgement", func() bool {
		now := segmentsOf(conn)
		return now.ago < 250*time.Millisecond && now.progress == before.progress+1
	})
}
