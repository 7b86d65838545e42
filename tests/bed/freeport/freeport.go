// Package freeport finds TCP ports for the servers that tests start.
package freeport

import (
	"errors"
	"net"
)

// Find returns a loopback port that nobody listens on. Another process may take it before it is
// used; the kernel hands out ephemeral ports in turn, so that is rare.
func Find() (int, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	address, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		return 0, errors.New("a TCP listener without a TCP address")
	}
	return address.Port, nil
}
