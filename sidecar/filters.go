package main

import (
	"fmt"
	"net/netip"
	"strings"

	"rockpool.dev/sidecar/config"
	"rockpool.dev/sidecar/filter"
	"rockpool.dev/sidecar/filter/keep"
)

// newFilter makes the filter of answers. Its further requests go through the Dispatcher, as those of
// clients do.
func (s *sidecar) newFilter() error {
	settings, err := filterSettings(s.cfg)
	if err != nil {
		return err
	}
	address, err := netip.ParseAddrPort(strings.Replace(s.cfg.Listen.Address, "localhost", "127.0.0.1", 1))
	if err != nil {
		return fmt.Errorf("listen.address: %w", err)
	}
	s.filter = filter.New(filter.Options{
		Next: s.dispatcher, Address: address, NodeName: s.cfg.Node.Name,
		Subject: s.credentials.Subject, Authorization: s.credentials.Authorization,
		Logger: s.log, Repeated: s.repeated,
	}, settings)
	return nil
}

// filterSettings gives the settings in the terms of package filter.
func filterSettings(cfg config.Config) (filter.Settings, error) {
	conditions, err := keep.Conditions(cfg.Filters.Rules)
	if err != nil {
		return filter.Settings{}, fmt.Errorf("filters.keep: %w", err)
	}
	return filter.Settings{Settings: cfg.Filters, Conditions: conditions}, nil
}
