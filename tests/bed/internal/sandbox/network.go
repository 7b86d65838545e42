package sandbox

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// HasIPv6 reports whether the kernel knows IPv6. If so, lo has ::1.
func HasIPv6() bool {
	_, err := os.Stat("/proc/net/if_inet6")
	return err == nil
}

// SetupNetwork sets the host name, brings lo up, which gives it 127.0.0.1 and ::1, and adds the other
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
		ip, err := netip.ParseAddr(address)
		switch {
		case err != nil:
		case ip.Is4():
			err = addIPv4(socket, fmt.Sprintf("lo:%d", i+1), ip)
		default:
			err = addIPv6(ip)
		}
		if err != nil {
			return fmt.Errorf("address %s: %w", address, err)
		}
	}
	// Any user may listen on any port, as with container runtimes. If the file is not writable,
	// listening on a low port fails with an error.
	_ = os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0)
	return nil
}

// addIPv4 adds an address with a prefix of 32 bits under an alias (netdevice(7)).
func addIPv4(socket int, alias string, ip netip.Addr) error {
	for _, setting := range []struct {
		request uint
		value   []byte
	}{{unix.SIOCSIFADDR, ip.AsSlice()}, {unix.SIOCSIFNETMASK, net.CIDRMask(32, 32)}} {
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

// addIPv6 adds an address with a prefix of 128 bits to lo (netlink(7), rtnetlink(7): RTM_NEWADDR).
func addIPv6(ip netip.Addr) error {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return err
	}
	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	const length = unix.SizeofNlMsghdr + unix.SizeofIfAddrmsg + unix.SizeofRtAttr + 16
	message := binary.NativeEndian.AppendUint32(nil, length)
	message = binary.NativeEndian.AppendUint16(message, unix.RTM_NEWADDR)
	message = binary.NativeEndian.AppendUint16(message, unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE)
	message = append(message, make([]byte, 8)...) // sequence, port
	message = append(message, unix.AF_INET6, 128, unix.IFA_F_NODAD, unix.RT_SCOPE_UNIVERSE)
	message = binary.NativeEndian.AppendUint32(message, uint32(lo.Index))
	message = binary.NativeEndian.AppendUint16(message, unix.SizeofRtAttr+16)
	message = binary.NativeEndian.AppendUint16(message, unix.IFA_ADDRESS)
	message = append(message, ip.AsSlice()...)
	if err := unix.Sendto(socket, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	reply := make([]byte, os.Getpagesize())
	n, _, err := unix.Recvfrom(socket, reply, 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 {
		return fmt.Errorf("the kernel's answer has %d bytes", n)
	}
	if code := int32(binary.NativeEndian.Uint32(reply[unix.SizeofNlMsghdr:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

func listenTCP(address string) (*net.TCPListener, error) {
	// Go's listeners are MPTCP by default, whose sockets take no filter.
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	listener, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	return listener.(*net.TCPListener), nil
}
