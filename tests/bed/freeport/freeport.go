// Package freeport finds loopback ports for the servers that tests start.
package freeport

import (
	"fmt"
	"net"
)

// Port returns a TCP port of 127.0.0.1 that nobody listens on. Another process may take it before
// it is used; the kernel hands out ephemeral ports in turn, so that is rare.
func Port() (int, error) {
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// Address returns 127.0.0.1 with a Port, as host:port.
func Address() (string, error) {
	port, err := Port()
	return fmt.Sprintf("127.0.0.1:%d", port), err
}
