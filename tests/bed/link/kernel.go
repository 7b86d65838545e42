package link

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The ends of a Kernel, and their addresses. Each Kernel has them in namespaces of its own.
const (
	clientDevice, clientAddress = "client", "192.0.2.1"
	serverDevice, serverAddress = "server", "192.0.2.2"
)

// A Kernel is a link that the kernel shapes: two network namespaces, which a veth pair joins. It
// is closer to a real link than a Link: real packets are dropped at the end of a full queue, and
// TCP sends them again and slows down. It needs root, ip and tc (iproute2), and a kernel with tbf;
// a round trip or a loss needs netem too.
type Kernel struct {
	client, server string // namespaces
}

// NewKernel makes both namespaces, and Close removes them. A test that is killed leaves them behind.
// The error is an errors.ErrUnsupported if this machine cannot have a Kernel of these shapes, and
// says why.
func NewKernel(ctx context.Context, up, down Shape) (*Kernel, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("network namespaces with tc need root: %w", errors.ErrUnsupported)
	}
	for _, tool := range []string{"ip", "tc"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("no %s (package iproute2): %w", tool, errors.ErrUnsupported)
		}
	}
	name := "rockpool-" + rand.Text()[:8]
	k := &Kernel{client: name + "-client", server: name + "-server"}
	err := k.join(ctx)
	if err == nil {
		err = k.SetShape(ctx, up, down)
	}
	if err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

// join makes the namespaces and the veth pair.
func (k *Kernel) join(ctx context.Context) error {
	for _, command := range [][]string{
		{"netns", "add", k.client},
		{"netns", "add", k.server},
		{"link", "add", clientDevice, "netns", k.client, "type", "veth", "peer", "name", serverDevice, "netns", k.server},
		{"-n", k.client, "addr", "add", clientAddress + "/24", "dev", clientDevice},
		{"-n", k.server, "addr", "add", serverAddress + "/24", "dev", serverDevice},
		{"-n", k.client, "link", "set", "lo", "up"},
		{"-n", k.server, "link", "set", "lo", "up"},
		{"-n", k.client, "link", "set", clientDevice, "up"},
		{"-n", k.server, "link", "set", serverDevice, "up"},
	} {
		if err := run(ctx, "ip", command...); err != nil {
			return err
		}
	}
	for _, namespace := range []string{k.client, k.server} {
		// This machine's own choice may be BBR, which keeps queues short. Most senders fill them, and
		// Reno is the one of these that any namespace may use.
		err := within(namespace, func() error {
			return os.WriteFile("/proc/sys/net/ipv4/tcp_congestion_control", []byte("reno"), 0)
		})
		if err != nil {
			return fmt.Errorf("cannot use Reno in a network namespace: %w (%w)", err, errors.ErrUnsupported)
		}
	}
	return nil
}

// SetShape changes the shape towards the server (up) and towards the client (down). Packets that
// wait in the queue are lost.
func (k *Kernel) SetShape(ctx context.Context, up, down Shape) error {
	return errors.Join(shape(ctx, k.client, clientDevice, up), shape(ctx, k.server, serverDevice, down))
}

// shape makes packets that leave through a device pass netem and then tbf, as far as needed.
func shape(ctx context.Context, namespace, device string, s Shape) error {
	// There is nothing to delete if the device has no shape yet.
	_ = run(ctx, "tc", "-n", namespace, "qdisc", "del", "dev", device, "root")
	add := []string{"-n", namespace, "qdisc", "add", "dev", device}
	place := []string{"root"}
	if s.RoundTrip > 0 || s.Loss > 0 {
		// The limit is in packets, on the way and lost ones.
		netem := []string{
			"root", "handle", "1:", "netem", "limit", "100000",
			"delay", fmt.Sprintf("%dus", (s.RoundTrip / 2).Microseconds()), "loss", fmt.Sprintf("%f%%", s.Loss*100),
		}
		if err := run(ctx, "tc", slices.Concat(add, netem)...); err != nil {
			return err
		}
		place = []string{"parent", "1:"}
	}
	if s.Rate == 0 {
		return nil
	}
	const burst = 2 * (segmentSize + headerSize) // in which one packet and its Ethernet header must fit
	tbf := []string{"tbf", "rate", fmt.Sprintf("%dbit", 8*s.Rate), "burst", fmt.Sprint(burst), "limit", fmt.Sprint(s.queue() + burst)}
	return run(ctx, "tc", slices.Concat(add, place, tbf)...)
}

// Listen listens on a free port of the server's end.
func (k *Kernel) Listen(ctx context.Context) (*net.TCPListener, error) {
	var listener net.Listener
	err := within(k.server, func() (err error) {
		var config net.ListenConfig
		config.SetMultipathTCP(false)
		listener, err = config.Listen(ctx, "tcp4", serverAddress+":0")
		return err
	})
	if err != nil {
		return nil, err
	}
	return listener.(*net.TCPListener), nil
}

// Dial connects from the client's end, from this process.
func (k *Kernel) Dial(ctx context.Context, address string) (net.Conn, error) {
	var conn net.Conn
	err := within(k.client, func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp4", address)
		return err
	})
	return conn, err
}

// Command returns a command that runs at the client's end, where the server's listeners and
// its own loopback are all that it reaches.
func (k *Kernel) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", k.client, name}, args...)...)
}

// Close removes the namespaces. Sockets and processes in them keep them alive.
func (k *Kernel) Close() {
	for _, namespace := range []string{k.client, k.server} {
		// It may not exist, if making it has failed.
		_ = run(context.Background(), "ip", "netns", "del", namespace)
	}
}

// Serve makes the Link accept connections at the server's end of a Kernel, and returns the address
// there. The Kernel shapes them before they reach the Link, so these have the buffers of any
// server. Delay adds a round trip where the kernel has no netem. Close the Link first.
func (l *Link) Serve(ctx context.Context, k *Kernel) (address string, err error) {
	listener, err := k.Listen(ctx)
	if err != nil {
		return "", err
	}
	_, err = l.listen(listener, func(int) error { return nil })
	return listener.Addr().String(), err
}

// within runs f in a network namespace, on a thread of its own, which ends with it. Sockets that
// f opens on the same thread stay in the namespace.
func within(namespace string, f func() error) error {
	result := make(chan error, 1)
	go func() {
		// Without unlocking: the runtime ends a thread that is locked to a goroutine when that ends.
		runtime.LockOSThread()
		result <- func() error {
			file, err := os.Open(filepath.Join("/run/netns", namespace))
			if err != nil {
				return err
			}
			defer file.Close()
			if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter network namespace %s: %w", namespace, err)
			}
			return f()
		}()
	}()
	return <-result
}

// run runs a tool. The error is an errors.ErrUnsupported if the kernel lacks a part or refuses it.
func run(ctx context.Context, name string, args ...string) error {
	output, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(output)))
	for _, refusal := range []string{"unknown", "Unknown", "not permitted", "not supported", "denied", "Read-only"} {
		if strings.Contains(string(output), refusal) {
			return fmt.Errorf("%w (%w)", err, errors.ErrUnsupported)
		}
	}
	return err
}
