package link

import (
	"fmt"
	"net"
	"testing"
	"time"

	"rockpool.dev/tests/eventually"
)

func TestAnIdleLinkCountsWhatTheKernelSends(t *testing.T) {
	link := echoLink(t)
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second}}
	conn, err := dialer.Dial("tcp", link.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	eventually.NoError(t, "the handshake", func() error {
		if got, want := link.Stats(), (Stats{Accepted: 1, Open: 1, PacketsUp: 2, PacketsDown: 1}); got != want {
			return fmt.Errorf("%+v, want %+v", got, want)
		}
		return nil
	})
	mark := link.Stats()
	eventually.NoError(t, "a keep-alive probe and its answer", func() error {
		got := link.Stats().Since(mark)
		probes := got.PacketsUp
		want := Stats{Open: 1, PacketsUp: probes, PacketsDown: probes}
		if probes == 0 || got != want || got.Wire() != 2*headerSize*probes {
			return fmt.Errorf("%+v, %d bytes", got, got.Wire())
		}
		return nil
	})

	if err := conn.(*net.TCPConn).SetKeepAlive(false); err != nil {
		t.Fatal(err)
	}
	mark = link.Stats()
	if err := echo(conn, "hello", time.Second); err != nil {
		t.Fatal(err)
	}
	eventually.NoError(t, "the bytes both ways", func() error {
		// The acknowledgements may come with the data.
		got := link.Stats().Since(mark)
		if got.WireUp() < 5+headerSize || got.WireDown() < 5+headerSize || got.Wire() > 2*(5+2*headerSize) {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})

	open := link.Stats()
	conn.Close()
	eventually.True(t, "the connection ends", func() bool { return link.Stats().Open == 0 })
	if got := link.Stats().Since(open); got.PacketsUp < 1 || got.PacketsDown < 0 {
		t.Errorf("packets of a connection that has ended are lost: %+v", got)
	}
}
