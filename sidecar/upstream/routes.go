package upstream

import (
	"context"
	"errors"
	"os"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// followRoutes tries the addresses that are down again when the routes or the IP addresses of the
// node change, until ctx ends (rtnetlink(7)). In a pod with a network of its own little changes;
// a pod with hostNetwork sees the modem come and go.
func (u *Upstream) followRoutes(ctx context.Context) {
	messages, err := openRoutes()
	if err != nil {
		u.logger.Debug("cannot follow changes of the node's routes; a return of the link is found by trying", zap.Error(err))
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = messages.Close() })
	defer stop()
	defer messages.Close()
	buffer := make([]byte, 4096)
	for {
		// What has changed does not matter; an overrun of the buffer says that much has.
		if _, err := messages.Read(buffer); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
		u.Wake()
	}
}

// openRoutes opens a socket that tells of changes.
func openRoutes() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV6_ROUTE)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return os.NewFile(uintptr(fd), "rtnetlink"), nil
}
