package link

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rockpool.dev/tests/bed/freeport"
	"rockpool.dev/tests/eventually"
)

// short is how long a test waits to be sure that nothing happens.
const short = 150 * time.Millisecond

// echoLink returns a Link to a server that sends everything back.
func echoLink(t *testing.T) *Link {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	link, err := New(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		link.Close()
		listener.Close()
	})
	return link
}

func dial(t *testing.T, link *Link) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", link.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// echo sends text and expects it back within limit.
func echo(conn net.Conn, text string, limit time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	return receive(conn, text, limit)
}

func receive(conn net.Conn, text string, limit time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	answer := make([]byte, len(text))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if string(answer) != text {
		return errors.New("got " + string(answer))
	}
	return nil
}

func TestALinkForwardsAndCountsBytes(t *testing.T) {
	link := echoLink(t)
	conn := dial(t, link)
	if err := echo(conn, "hello", time.Second); err != nil {
		t.Fatal(err)
	}
	want := Stats{Accepted: 1, Open: 1, BytesUp: 5, BytesDown: 5}
	eventually.NoError(t, "the link counts the bytes", func() error {
		got := link.Stats()
		got.PacketsUp, got.PacketsDown = 0, 0
		if got != want {
			return fmt.Errorf("%+v, want %+v", got, want)
		}
		return nil
	})
	conn.Close()
	eventually.True(t, "the link closes the connection", func() bool { return link.Stats().Open == 0 })
}

func TestAHalfClosedStreamArrivesCompletely(t *testing.T) {
	link := echoLink(t)
	link.Delay(20 * time.Millisecond)
	conn := dial(t, link).(*net.TCPConn)
	sent := make([]byte, 20<<20)
	_, _ = rand.Read(sent)
	go func() {
		_, _ = conn.Write(sent)
		_ = conn.CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("got %d bytes, %v, want the %d sent", len(got), err, len(sent))
	}
}

func TestCutResetsExistingConnectionsAndRefusesNewOnes(t *testing.T) {
	link := echoLink(t)
	conn := dial(t, link)
	if err := echo(conn, "before", time.Second); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a link can be cut and restored more than once
		link.Cut()
		link.Cut()
		if err := echo(conn, "during", time.Second); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("existing connection: %v, want a reset", err)
		}
		if _, err := net.Dial("tcp", link.Address()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("new connection: %v, want it refused", err)
		}
		link.Restore()
		link.Restore()
		conn = dial(t, link)
		if err := echo(conn, "after", time.Second); err != nil {
			t.Errorf("after Restore: %v", err)
		}
	}
}

func TestBlackHoleSilencesConnectionsUntilRestored(t *testing.T) {
	link := echoLink(t)
	old := dial(t, link)
	if err := echo(old, "before", time.Second); err != nil {
		t.Fatal(err)
	}
	link.BlackHole()
	if err := echo(old, "old", short); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("existing connection: %v, want silence", err)
	}
	fresh := dial(t, link)
	if err := echo(fresh, "fresh", short); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("new connection: %v, want it accepted and silent", err)
	}
	link.Restore()
	if err := receive(old, "old", time.Second); err != nil {
		t.Errorf("existing connection after Restore: %v, want the bytes sent before", err)
	}
	if err := receive(fresh, "fresh", time.Second); err != nil {
		t.Errorf("new connection after Restore: %v, want the bytes sent before", err)
	}
}

func TestAllAddressesOfALinkFailTogether(t *testing.T) {
	link := echoLink(t)
	port, err := freeport.Port()
	if err != nil {
		t.Fatal(err)
	}
	public := fmt.Sprintf("127.0.0.3:%d", port)
	if err := link.Listen(t.Context(), public); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", public)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := echo(conn, "before", time.Second); err != nil {
		t.Fatal(err)
	}
	link.Cut()
	if err := echo(conn, "during", time.Second); err == nil {
		t.Error("the connection survives Cut")
	}
	if _, err := net.Dial("tcp", public); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("new connection: %v, want it refused", err)
	}
	link.Restore()
	if conn, err = net.Dial("tcp", public); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := echo(conn, "after", time.Second); err != nil {
		t.Error(err)
	}
	if err := link.Listen(t.Context(), public); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("an address that is in use: %v, want EADDRINUSE", err)
	}
}

func TestDropLeavesNewConnectionsUnanswered(t *testing.T) {
	link := echoLink(t)
	old := dial(t, link)
	if err := link.Drop(); errors.Is(err, syscall.EPERM) && os.Geteuid() != 0 {
		t.Skip("this machine has no socket filters for ordinary users")
	} else if err != nil {
		t.Fatal(err)
	}
	if err := echo(old, "old", short); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("existing connection: %v, want silence", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), short)
	defer cancel()
	_, err := (&net.Dialer{}).DialContext(ctx, "tcp", link.Address())
	if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() {
		t.Errorf("new connection: %v, want no answer", err)
	}
	link.Cut()
	if _, err := net.Dial("tcp", link.Address()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("new connection after a cut: %v, want it refused", err)
	}
	link.Restore()
	if err := echo(dial(t, link), "after", time.Second); err != nil {
		t.Errorf("after Restore: %v", err)
	}
}

func TestHalfOpenSilencesExistingConnectionsOnly(t *testing.T) {
	link := echoLink(t)
	old := dial(t, link)
	if err := echo(old, "before", time.Second); err != nil {
		t.Fatal(err)
	}
	link.HalfOpen()
	if err := echo(old, "old", short); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("existing connection: %v, want silence", err)
	}
	if err := echo(dial(t, link), "fresh", time.Second); err != nil {
		t.Errorf("new connection: %v", err)
	}
	link.BlackHole()
	link.Restore()
	if err := receive(old, "old", short); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("existing connection after Restore: %v, want silence", err)
	}
}

func TestResetBreaksConnectionsAndAcceptsNewOnes(t *testing.T) {
	link := echoLink(t)
	conn := dial(t, link)
	if err := echo(conn, "before", time.Second); err != nil {
		t.Fatal(err)
	}
	link.Reset()
	if err := echo(conn, "during", time.Second); err == nil {
		t.Error("existing connection still works")
	}
	if err := echo(dial(t, link), "after", time.Second); err != nil {
		t.Errorf("new connection: %v", err)
	}
}

func TestABlackHoleHoldsAnHTTPStreamAndACutBreaksIt(t *testing.T) {
	events := make(chan string)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for {
			select {
			case event := <-events:
				_, _ = io.WriteString(w, event)
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}))
	defer server.Close()
	link, err := New(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	go func() { events <- "1" }()
	response, err := http.Get("http://" + link.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	received, ended := make(chan string, 10), make(chan error, 1)
	go func() {
		for {
			one := make([]byte, 1)
			if _, err := response.Body.Read(one); err != nil {
				ended <- err
				return
			}
			received <- string(one)
		}
	}()
	<-received
	link.BlackHole()
	events <- "2"
	select {
	case event := <-received:
		t.Errorf("event %s through a black hole", event)
	case err := <-ended:
		t.Fatalf("a black hole ended the stream: %v", err)
	case <-time.After(short):
	}
	link.Restore()
	if event := <-received; event != "2" {
		t.Errorf("event %s after Restore, want 2", event)
	}
	link.Cut()
	if err := <-ended; err == io.EOF {
		t.Error("a cut looks like the normal end of the stream")
	}
}

func TestAClosedLinkLeavesNoGoroutines(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	link, err := New("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	link.Cut()
	link.Close()
	if link, err = New("127.0.0.1:1"); err != nil {
		t.Fatal(err)
	}
	link.BlackHole()
	conn, err := net.Dial("tcp", link.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	link.Close()
}
