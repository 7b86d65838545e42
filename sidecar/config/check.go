package config

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// conflicts finds settings that are valid alone but not together.
func (c Config) conflicts() (problems []error) {
	listeners := []struct{ key, address string }{
		{"listen.address", c.Listen.Address},
		{"listen.service-address", c.Listen.ServiceAddress},
		{"connect.address", c.Connect.Address},
		{"metrics.address", c.Metrics.Address},
	}
	for i, a := range listeners {
		for _, b := range listeners[:i] {
			if a.address != "" && sameListener(a.address, b.address) {
				problems = append(problems, fmt.Errorf("%s: %q is taken by %s (%q); each listener needs a port of its own",
					a.key, a.address, b.key, b.address))
			}
		}
	}
	for _, s := range c.Upstream.Servers {
		if err := c.notSelf(s.URL); err != nil {
			problems = append(problems, fmt.Errorf("upstream.servers: %w", err))
		}
	}

	directories := []struct{ key, path string }{
		{"account.source", c.Account.Source},
		{"account.mirror", c.Account.Mirror},
		{"private.directory", c.Private.Directory},
		{"cache.directory", c.Cache.Directory},
	}
	for i, a := range directories {
		for j, b := range directories {
			// Keys and tokens must stay off the disk of the cache, and keys out of the
			// directory that applications see.
			if i != j && within(a.path, b.path) && (a.path != b.path || i > j) {
				problems = append(problems, fmt.Errorf("%s: %q is inside %s (%q); the directories must be apart",
					a.key, a.path, b.key, b.path))
			}
		}
	}
	return problems
}

// within reports whether path is directory or below it.
func within(path, directory string) bool {
	rel, err := filepath.Rel(directory, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// sameListener reports whether a process cannot listen on both addresses.
func sameListener(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB {
		return false
	}
	return canonical(hostA) == canonical(hostB) || wildcard(hostA) || wildcard(hostB)
}

func canonical(host string) string {
	if host == "localhost" {
		return "127.0.0.1"
	}
	return host
}

func wildcard(host string) bool {
	return host == "" || net.ParseIP(host).IsUnspecified()
}

// notSelf rejects the sidecar's own listener as its upstream: requests would loop until the
// ports run out. With a service address, the names of the API server's Service mean the sidecar in
// the whole pod.
func (c Config) notSelf(u *url.URL) error {
	self := slices.ContainsFunc([]string{c.Listen.Address, c.Listen.ServiceAddress, c.Connect.Address}, func(own string) bool {
		return own != "" && sameListener(u.Host, own)
	})
	if self || c.Listen.ServiceAddress != "" && slices.Contains(APINames(c.Cluster.Domain), u.Hostname()) {
		return fmt.Errorf("%q is this sidecar's own listener; the address of a kube-apiserver is allowed", u.Host)
	}
	return nil
}
