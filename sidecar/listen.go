package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"go.uber.org/zap"

	"rockpool.dev/sidecar/config"
)

// listeners are the sidecar's open ports.
type listeners struct{ api, service, connect, metrics net.Listener }

func listen(ctx context.Context, cfg config.Config, log *zap.Logger) (*listeners, error) {
	l := &listeners{}
	for _, x := range []struct {
		key, address string
		to           *net.Listener
	}{
		{"listen.address", cfg.Listen.Address, &l.api},
		{"connect.address", cfg.Connect.Address, &l.connect},
		{"metrics.address", cfg.Metrics.Address, &l.metrics},
	} {
		if x.address == "" {
			continue
		}
		var err error
		if *x.to, err = (&net.ListenConfig{}).Listen(ctx, "tcp", x.address); err != nil {
			l.close()
			if errors.Is(err, syscall.EADDRINUSE) {
				return nil, fmt.Errorf("%s: port of %s is taken by another program of the pod; give one of them another port: %w", x.key, x.address, err)
			}
			return nil, fmt.Errorf("%s: %w", x.key, err)
		}
	}
	if address := cfg.Listen.ServiceAddress; address != "" {
		var err error
		// A server of the pod may need the port on all addresses.
		if l.service, err = (&net.ListenConfig{}).Listen(ctx, "tcp", address); err != nil {
			log.Error("listen.service-address: cannot listen there; programs that use the API server's name or port 443 are refused, "+
				"or reach another program", zap.String("address", address), zap.Error(err))
		}
	}
	return l, nil
}

func (l *listeners) close() {
	for _, x := range []net.Listener{l.api, l.service, l.connect, l.metrics} {
		if x != nil {
			_ = x.Close() // the servers have closed theirs
		}
	}
}
