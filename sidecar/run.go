package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"rockpool.dev/sidecar/account"
	"rockpool.dev/sidecar/agent"
	"rockpool.dev/sidecar/certs"
	"rockpool.dev/sidecar/config"
	"rockpool.dev/sidecar/flow"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/proxy"
	"rockpool.dev/sidecar/upstream"
)

// run serves until ctx ends. The settings are cfg, and what the file that flags name
// makes of them while it runs.
func run(ctx context.Context, cfg config.Config, flags *pflag.FlagSet) error {
	log, level, err := newLogger(cfg.Log)
	if err != nil {
		return err
	}
	defer log.Sync() //nolint:errcheck // stderr may not be syncable
	log.Info("starting", zap.String("version", describe()))

	// First what can only fail for good, so that it is seen at once.
	servers, err := upstreamServers(cfg)
	if err != nil {
		return err
	}
	listeners, err := listen(ctx, cfg)
	if err != nil {
		return err
	}
	defer listeners.close()

	authority, err := certs.Open(certs.Options{Directory: cfg.Private.Directory, Logger: log})
	if err != nil {
		return err
	}
	mirror := account.New(account.Options{Source: cfg.Account.Source, Mirror: cfg.Account.Mirror, CAPEM: authority.CAPEM(), Logger: log})
	disk, memory := openDisk(ctx, cfg, log), openMemory(ctx, cfg, log)
	defer disk.close(log)
	defer memory.close(log)

	s := &sidecar{cfg: cfg, flags: flags, log: log, level: level, agents: agent.NewCurrent(cfg.Cache.Agents), mirror: mirror, disk: disk, memory: memory}
	if err := s.connect(servers); err != nil {
		return err
	}
	s.flow = s.newFlow()
	server, err := proxy.New(proxy.Options{
		Transport: s.flow, Upgrade: s.upstream.HTTP1(), TLS: authority.TLSConfig(),
		ConnectHosts: connectHosts(servers), Context: flow.WithRoute, Observe: accessLog(log),
		Whole: func(r *http.Request) bool { info := flow.RouteOf(r.Context()).Info; return info.IsWhole() },
		Grace: cfg.Shutdown.Grace, Logger: log,
	})
	if err != nil {
		return err
	}
	return s.serve(ctx, server, listeners)
}

// sidecar holds the parts that run side by side.
type sidecar struct {
	cfg      config.Config // as at the start
	flags    *pflag.FlagSet
	log      *zap.Logger
	level    zap.AtomicLevel // of log
	agents   *agent.Current
	mirror   *account.Mirror
	disk     *cache
	memory   *cache
	upstream *upstream.Upstream
	keys     *principal.Fetcher
	flow     *flow.Flow
}

func upstreamServers(cfg config.Config) ([]upstream.Server, error) {
	urls, err := cfg.UpstreamServers(os.Getenv)
	if err != nil {
		return nil, err
	}
	inCluster, err := cfg.InCluster(os.Getenv)
	if err != nil {
		return nil, err
	}
	servers := make([]upstream.Server, len(urls))
	for i, u := range urls {
		servers[i].URL = u
		if inCluster == nil || u.String() != inCluster.String() {
			servers[i].TLSServerName = cfg.Upstream.TLSServerName
		}
	}
	return servers, nil
}

// connect makes the way upstream and what keeps its keys.
func (s *sidecar) connect(servers []upstream.Server) (err error) {
	s.upstream, err = upstream.New(upstream.Options{
		Servers:       servers,
		CAFile:        filepath.Join(s.cfg.Account.Source, account.CAFile),
		TokenFile:     filepath.Join(s.cfg.Account.Source, account.TokenFile),
		ProbeInterval: s.cfg.Upstream.ProbeInterval, ProbeTimeout: s.cfg.Upstream.ProbeTimeout, ConnectTimeout: s.cfg.Upstream.ConnectTimeout,
		OnChange: func(state upstream.State, reason string) {
			if s.disk.Recorder != nil {
				s.disk.Recorder.Link(state.String(), reason)
			}
		},
		Logger: s.log,
	})
	if err != nil {
		return err
	}
	o := principal.FetcherOptions{Transport: s.upstream, Token: s.mirror.Token, WaitOnline: s.upstream.WaitOnline, Logger: s.log}
	if s.disk.db != nil {
		o.Facts = s.disk.db
	}
	s.keys = principal.NewFetcher(o)
	return nil
}

func (s *sidecar) newFlow() *flow.Flow {
	return flow.New(flow.Options{
		Upstream: s.upstream,
		Disk:     s.disk.Cache, Memory: s.memory.Cache, MemoryOnly: s.cfg.Cache.MemoryOnly, Agents: s.agents,
		Verifier:       principal.NewVerifier(principal.Options{Keys: s.keys, Own: s.mirror.Token, Grace: s.cfg.Offline.TokenGrace}),
		ReviewLifetime: s.cfg.Offline.ReviewLifetime,
		Token:          s.mirror.Token,
		Logger:         s.log,
	})
}

// apply makes the settings hold that can change while the sidecar runs; Key.Runtime
// says which.
func (s *sidecar) apply(cfg config.Config) {
	s.level.SetLevel(cfg.Log.Level)
	s.agents.Set(cfg.Cache.Agents)
}

// serve runs all parts until ctx ends or one fails. The servers stop first; what
// they were recording is written after that.
func (s *sidecar) serve(ctx context.Context, server *proxy.Server, l *listeners) error {
	if err := s.keys.Load(ctx); err != nil {
		s.log.Warn("the recorded signing keys cannot be used; they are fetched again", zap.Error(err))
	}
	// The mirror comes before the first connection: its ca.crt is what clients
	// need for one.
	if err := s.mirror.Sync(); err != nil {
		s.log.Error("the service-account directory is not complete yet", zap.Error(err))
	}

	// The parts behind the servers live until the servers are done with them.
	behind, stop := context.WithCancel(context.WithoutCancel(ctx))
	parts, behind := errgroup.WithContext(behind)
	parts.Go(func() error { return s.mirror.Run(behind) })
	parts.Go(func() error { return s.upstream.Run(behind) })
	parts.Go(func() error { return s.keys.Run(behind) })
	parts.Go(func() error { return s.flow.Run(behind) })
	parts.Go(func() error {
		return config.Follow(behind, config.FollowOptions{Flags: s.flags, Config: s.cfg, Apply: s.apply, Logger: s.log})
	})
	if s.disk.db != nil {
		parts.Go(func() error { return s.disk.follow(behind, s.cfg, s.log) })
	}
	for _, c := range []*cache{s.disk, s.memory} {
		if c.Recorder != nil {
			parts.Go(func() error { return c.Recorder.Run(behind) })
		}
	}

	front, ctx := errgroup.WithContext(ctx)
	front.Go(func() error { return server.Serve(ctx, l.api) })
	if l.connect != nil {
		front.Go(func() error { return server.ServeConnect(ctx, l.connect) })
	}
	if l.metrics != nil {
		front.Go(func() error { return serveMetrics(ctx, l.metrics, prometheus.DefaultGatherer) })
	}
	s.log.Info("ready", zap.String("listen.address", s.cfg.Listen.Address))
	err := front.Wait()
	stop()
	err = errors.Join(err, parts.Wait())
	s.log.Info("stopped", zap.Error(err))
	return err
}

// connectHosts are the names under which a client that uses a forward proxy may
// look for the API.
func connectHosts(servers []upstream.Server) []string {
	hosts := []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	for _, s := range servers {
		port := s.URL.Port()
		if port == "" {
			port = "443"
		}
		hosts = append(hosts, net.JoinHostPort(s.URL.Hostname(), port))
	}
	return hosts
}

// listeners are the sidecar's open ports.
type listeners struct{ api, connect, metrics net.Listener }

func listen(ctx context.Context, cfg config.Config) (*listeners, error) {
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
	return l, nil
}

func (l *listeners) close() {
	for _, x := range []net.Listener{l.api, l.connect, l.metrics} {
		if x != nil {
			_ = x.Close() // the servers have closed theirs
		}
	}
}
