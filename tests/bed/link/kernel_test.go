package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// newKernel returns a Kernel, or skips the test where there can be none.
func newKernel(t *testing.T, up, down Shape) *Kernel {
	t.Helper()
	k, err := NewKernel(t.Context(), up, down)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("THIS MACHINE CANNOT SHAPE A LINK IN THE KERNEL: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

// bulk is how much each test transfers at 1 Mbit/s.
const bulk = 256 << 10

var megabit = Shape{Rate: 125_000, Queue: 64 << 10}

// serveBulk sends bulk to each connection that has asked with a byte.
func serveBulk(t *testing.T, listener net.Listener) {
	t.Helper()
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if _, err := io.ReadFull(conn, make([]byte, 1)); err == nil {
					_, _ = conn.Write(make([]byte, bulk))
				}
			}()
		}
	}()
}

// transfer returns how long it takes to receive bulk.
func transfer(dial func() (net.Conn, error)) (time.Duration, error) {
	started := time.Now()
	conn, err := dial()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte{1}); err != nil {
		return 0, err
	}
	n, err := io.Copy(io.Discard, conn)
	if err == nil && n != bulk {
		err = fmt.Errorf("got %d bytes", n)
	}
	return time.Since(started), err
}

func TestALinkIsAsFastAsTheKernels(t *testing.T) {
	kernel := newKernel(t, megabit, megabit)
	listener, err := kernel.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	serveBulk(t, listener)
	link, target := pair(t)
	link.SetShape(megabit, megabit)
	serveBulk(t, target)

	type result struct {
		took time.Duration
		err  error
	}
	ofKernel := make(chan result, 1)
	go func() {
		took, err := transfer(func() (net.Conn, error) { return kernel.Dial(t.Context(), listener.Addr().String()) })
		ofKernel <- result{took, err}
	}()
	took, err := transfer(func() (net.Conn, error) { return net.Dial("tcp", link.Address()) })
	k := <-ofKernel
	if err != nil || k.err != nil {
		t.Fatalf("link: %v; kernel: %v", err, k.err)
	}
	t.Logf("the link took %s, the kernel %s", took, k.took)
	if ratio := float64(took) / float64(k.took); ratio < 0.85 || ratio > 1.15 {
		t.Errorf("the link took %s, the kernel %s: more than 15 %% apart", took, k.took)
	}
}

func TestALinkServesAProcessBehindAKernel(t *testing.T) {
	kernel := newKernel(t, Shape{}, Shape{})
	link := echoLink(t)
	address, err := link.Serve(t.Context(), kernel)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := kernel.Dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := echo(conn, "hello", time.Second); err != nil {
		t.Fatal(err)
	}
	link.Cut()
	if err := echo(conn, "hello", time.Second); err == nil {
		t.Error("the connection survives Cut")
	}

	command := kernel.Command(t.Context(), "ip", "-brief", "addr")
	output, err := command.Output()
	if err != nil || !bytes.Contains(output, []byte(clientAddress)) {
		t.Errorf("a process at the client's end sees %s (%v), want %s", output, err, clientAddress)
	}
}

func TestAClosedKernelLeavesNoNamespaces(t *testing.T) {
	kernel := newKernel(t, megabit, Shape{})
	kernel.Close()
	output, err := exec.Command("ip", "netns", "list").Output()
	if err != nil || strings.Contains(string(output), kernel.client) || strings.Contains(string(output), kernel.server) {
		t.Errorf("after Close: %s (%v)", output, err)
	}
}

func TestAKernelSaysWhatItCannotDo(t *testing.T) {
	newKernel(t, Shape{}, Shape{}).Close() // or skip
	ctx, cancel := context.WithCancel(t.Context())
	kernel, err := NewKernel(ctx, Shape{RoundTrip: 40 * time.Millisecond}, Shape{})
	cancel()
	if err == nil {
		kernel.Close()
		t.Skip("this kernel has netem, too")
	}
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "netem") {
		t.Errorf("%v, want netem named as unsupported", err)
	}
}
