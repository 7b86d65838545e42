package sandbox

import (
	"context"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// SetupNetwork sets the host name, brings lo up, which gives it 127.0.0.1, and adds the other
// addresses to it. There is no other interface and no route, so every other destination is
// unreachable at once.
func SetupNetwork(s Setup) error {
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	for i, address := range s.Addresses {
		if err := addAddress(socket, fmt.Sprintf("lo:%d", i+1), address); err != nil {
			return fmt.Errorf("address %s: %w", address, err)
		}
	}
	// Any user may listen on any port, as with container runtimes. If the file is not writable,
	// listening on a low port fails with an error.
	_ = os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0)
	return nil
}

// addAddress adds an IPv4 address with a prefix of 32 bits under an alias (netdevice(7)).
func addAddress(socket int, alias, address string) error {
	ip := net.ParseIP(address).To4()
	if ip == nil {
		return fmt.Errorf("not an IPv4 address")
	}
	for _, setting := range []struct {
		request uint
		value   []byte
	}{{unix.SIOCSIFADDR, ip}, {unix.SIOCSIFNETMASK, net.CIDRMask(32, 32)}} {
		interfaceRequest, err := unix.NewIfreq(alias)
		if err != nil {
			return err
		}
		if err := interfaceRequest.SetInet4Addr(setting.value); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(socket, setting.request, interfaceRequest); err != nil {
			return err
		}
	}
	return nil
}

func listenTCP(address string) (*net.TCPListener, error) {
	// Go's listeners are MPTCP by default, whose sockets take no filter.
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	listener, err := config.Listen(context.Background(), "tcp4", address)
	if err != nil {
		return nil, err
	}
	return listener.(*net.TCPListener), nil
}
