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
	counts := func(what string, mark, want Stats) {
		t.Helper()
		eventually.NoError(t, what, func() error {
			if got := link.Stats().Since(mark); got != want {
				return fmt.Errorf("%+v, want %+v", got, want)
			}
			return nil
		})
	}
	counts("the handshake", Stats{}, Stats{Accepted: 1, Open: 1, PacketsUp: 2, PacketsDown: 1})
	mark := link.Stats()
	time.Sleep(short)
	counts("nothing while idle", mark, Stats{Open: 1})
	counts("a keep-alive probe and its answer", mark, Stats{Open: 1, PacketsUp: 1, PacketsDown: 1})
	if wire := link.Stats().Since(mark).Wire(); wire != 2*headerSize {
		t.Errorf("a keep-alive probe and its answer: %d bytes", wire)
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
