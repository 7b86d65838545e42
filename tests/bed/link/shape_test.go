package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"rockpool.dev/tests/eventually"
)

// connected returns both ends of a connection through the link to listener. The link may still
// hold the first bytes of the client.
func connected(t *testing.T, link *Link, listener net.Listener) (client, server net.Conn) {
	t.Helper()
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- conn
	}()
	client = dial(t, link)
	server = eventually.Receive(t, "the connection at the server", accepted)
	t.Cleanup(func() { server.Close() })
	return client, server
}

// pair returns a Link and the listener that it forwards to.
func pair(t *testing.T) (*Link, net.Listener) {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	link, err := New(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		link.Close()
		listener.Close()
	})
	return link, listener
}

// long is how long a test waits for what has to happen. It is for slow machines.
const long = 10 * time.Second

// atLeast fails the test if took is less than want. More is for slow machines: the tests of the
// schedule are exact.
func atLeast(t *testing.T, what string, took, want time.Duration) {
	t.Helper()
	if took < want-5*time.Millisecond {
		t.Errorf("%s took %s, want at least %s", what, took, want)
	}
}

// established returns both ends of a connection that the link carries.
func established(t *testing.T, link *Link, listener net.Listener) (client, server net.Conn) {
	t.Helper()
	client, server = connected(t, link, listener)
	if _, err := io.WriteString(client, "established"); err != nil {
		t.Fatal(err)
	}
	if err := receive(server, "established", long); err != nil {
		t.Fatal(err)
	}
	if err := server.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// faster waits until f takes less than limit: a slow machine may need several attempts.
func faster(t *testing.T, what string, limit time.Duration, f func() error) {
	t.Helper()
	eventually.NoError(t, what, func() error {
		started := time.Now()
		if err := f(); err != nil {
			return err
		}
		if took := time.Since(started); took >= limit {
			return fmt.Errorf("took %s, want less than %s", took, limit)
		}
		return nil
	})
}

func TestARoundTripDelaysBothWays(t *testing.T) {
	link := echoLink(t)
	conn := dial(t, link)
	if err := echo(conn, "connected", long); err != nil {
		t.Fatal(err)
	}
	link.SetShape(Shape{RoundTrip: 300 * time.Millisecond}, Shape{RoundTrip: 100 * time.Millisecond})
	started := time.Now()
	if err := echo(conn, "slow", long); err != nil {
		t.Fatal(err)
	}
	atLeast(t, "a round trip", time.Since(started), 200*time.Millisecond)

	started = time.Now()
	if err := echo(dial(t, link), "new", long); err != nil {
		t.Fatal(err)
	}
	atLeast(t, "a connection and a round trip", time.Since(started), 400*time.Millisecond)

	link.Delay(0)
	faster(t, "a round trip without delay", 200*time.Millisecond, func() error { return echo(conn, "fast", long) })
}

func TestBulkPassesAtTheRate(t *testing.T) {
	link, listener := pair(t)
	client, server := established(t, link, listener)
	link.SetShape(Shape{}, Shape{Rate: 200_000, Queue: 16 << 10})
	started := time.Now()
	go func() { _, _ = server.Write(make([]byte, 80_000)) }()
	if _, err := io.ReadFull(client, make([]byte, 80_000)); err != nil {
		t.Fatal(err)
	}
	atLeast(t, "80,000 bytes", time.Since(started), 415*time.Millisecond) // with 56 headers

	faster(t, "the other direction", 415*time.Millisecond, func() error {
		_, written := client.Write(make([]byte, 80_000))
		_, read := io.ReadFull(server, make([]byte, 80_000))
		return errors.Join(written, read)
	})
}

// fill makes one connection fill the queue towards the clients, and returns both ends of another.
func fill(t *testing.T, link *Link, listener net.Listener, down Shape) (client, server net.Conn) {
	t.Helper()
	_, bulk := established(t, link, listener) // its client reads nothing, which must not matter
	client, server = established(t, link, listener)
	link.SetShape(Shape{}, down)
	go func() { _, _ = bulk.Write(make([]byte, 1<<20)) }()
	eventually.True(t, "the queue is full", func() bool {
		link.mu.Lock()
		defer link.mu.Unlock()
		return link.down.schedule.full(link.now()) > 0
	})
	return client, server
}

func TestASmallAnswerWaitsBehindTheBulkOfAnotherConnection(t *testing.T) {
	link, listener := pair(t)
	client, server := fill(t, link, listener, Shape{Rate: 100_000, Queue: 40_000})
	started := time.Now()
	if _, err := io.WriteString(server, "ready"); err != nil {
		t.Fatal(err)
	}
	if err := receive(client, "ready", long); err != nil {
		t.Fatal(err)
	}
	atLeast(t, "the answer", time.Since(started), 400*time.Millisecond)
}

func TestANewConnectionWaitsBehindTheBulk(t *testing.T) {
	link, listener := pair(t)
	fill(t, link, listener, Shape{Rate: 100_000, Queue: 30_000})
	started := time.Now()
	established(t, link, listener)
	atLeast(t, "the first bytes", time.Since(started), 300*time.Millisecond)
}

func TestSocketBuffersDoNotHideTheQueue(t *testing.T) {
	link, listener := pair(t)
	_, server := established(t, link, listener)
	link.SetShape(Shape{}, Shape{Rate: 1})
	link.BlackHole() // nothing drains
	if err := server.SetDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n, err := server.Write(make([]byte, 8<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	// The sender's own buffer is up to a few hundred KiB.
	if n > 512<<10 {
		t.Errorf("a sender was rid of %d bytes before a link that is full", n)
	}
}

func TestAQueueDrainsWhenTheRateEnds(t *testing.T) {
	link, listener := pair(t)
	client, server := fill(t, link, listener, Shape{Rate: 1000, Queue: 40_000})
	if _, err := io.WriteString(server, "ready"); err != nil {
		t.Fatal(err)
	}
	if err := receive(client, "ready", short); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("behind 40 s of bulk: %v, want silence", err)
	}
	if err := client.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(client, "asked"); err != nil {
		t.Fatal(err)
	}
	if err := receive(server, "asked", long); err != nil {
		t.Errorf("the other direction: %v", err)
	}
	link.SetShape(Shape{}, Shape{})
	if err := receive(client, "ready", long); err != nil {
		t.Error(err)
	}
}

func TestABlackHoleKeepsTheQueueAndACutEmptiesIt(t *testing.T) {
	link, listener := pair(t)
	client, server := fill(t, link, listener, Shape{Rate: 100_000, Queue: 30_000})
	link.BlackHole()
	if _, err := io.WriteString(server, "ready"); err != nil {
		t.Fatal(err)
	}
	if err := receive(client, "ready", 500*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("in a black hole: %v, want silence", err)
	}
	started := time.Now()
	link.Restore()
	if err := receive(client, "ready", long); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(started); took < 100*time.Millisecond {
		t.Errorf("after the black hole the queue was gone within %s", took)
	}

	link.SetShape(Shape{}, Shape{Rate: 1000}) // for 30 s of bulk
	link.Cut()
	link.Restore()
	client, server = established(t, link, listener)
	if _, err := io.WriteString(server, "fresh"); err != nil {
		t.Fatal(err)
	}
	if err := receive(client, "fresh", long); err != nil {
		t.Errorf("after the cut: %v", err)
	}
}

func TestALostChunkHoldsBackItsOwnConnectionOnly(t *testing.T) {
	link, listener := pair(t)
	late, lateServer := established(t, link, listener)
	other, otherServer := established(t, link, listener)
	busyUntil := func() time.Duration {
		link.mu.Lock()
		defer link.mu.Unlock()
		return link.down.schedule.free
	}
	link.SetShape(Shape{}, Shape{Rate: 1 << 30, RoundTrip: 400 * time.Millisecond, Loss: 1})
	before, started := busyUntil(), time.Now()
	if _, err := io.WriteString(lateServer, "late"); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the chunk is on the way", func() bool { return busyUntil() != before })
	link.SetShape(Shape{}, Shape{})
	for _, conn := range []net.Conn{lateServer, otherServer} {
		if _, err := io.WriteString(conn, " and good"); err != nil {
			t.Fatal(err)
		}
	}
	if err := receive(other, " and good", 700*time.Millisecond); err != nil {
		t.Errorf("another connection: %v", err)
	}
	if err := receive(late, "late and good", long); err != nil {
		t.Fatal(err)
	}
	atLeast(t, "a lost chunk", time.Since(started), 800*time.Millisecond)
}
