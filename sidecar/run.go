package main

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/api/agent"
	"rockpool.dev/sidecar/api/exclude"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/config"
	"rockpool.dev/sidecar/dispatch"
	"rockpool.dev/sidecar/filter"
	"rockpool.dev/sidecar/live"
	"rockpool.dev/sidecar/meter"
	"rockpool.dev/sidecar/outage"
	"rockpool.dev/sidecar/pod/account"
	"rockpool.dev/sidecar/pod/certs"
	"rockpool.dev/sidecar/pod/processors"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/proxy"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/sidecar/relist"
	"rockpool.dev/sidecar/report"
	"rockpool.dev/sidecar/socket"
	"rockpool.dev/sidecar/status"
	"rockpool.dev/sidecar/tally"
	"rockpool.dev/sidecar/upstream"
	"rockpool.dev/sidecar/write/lease"
	"rockpool.dev/sidecar/write/outbox"
	"rockpool.dev/sidecar/write/token"
)

// gcPercent is GOGC where the environment sets none. Of the values that were tried, it is the
// largest that costs no memory to speak of: docs/benchmarks.md has a table.
const gcPercent = 75

// run serves until ctx ends. The settings are cfg, and what the file that flags name
// makes of them while it runs.
func run(ctx context.Context, cfg config.Config, flags *pflag.FlagSet) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	processors := processors.New()
	log, level, err := newLogger(cfg.Log)
	if err != nil {
		return err
	}
	recent := &status.Recent{}
	log = recent.Logger(log)
	defer log.Sync() //nolint:errcheck // stderr may not be syncable
	repeated := tally.New(log, clock.RealClock{})
	defer repeated.Flush()
	log.Info("starting", zap.String("version", describe()))

	// First what can only fail for good, so that it is seen at once.
	settings, err := upstreamSettings(cfg)
	if err != nil {
		return err
	}
	listeners, err := listen(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer listeners.close()

	authority, err := certs.Open(certs.Options{Directory: cfg.Private.Directory, Names: config.APINames(cfg.Cluster.Domain), Address: cfg.Listen.Host(), Logger: log})
	if err != nil {
		return err
	}
	mirror := account.New(account.Options{Source: cfg.Account.Source, Mirror: cfg.Account.Mirror, CAPEM: authority.CAPEM(), Logger: log})
	reporter := report.New(log, clock.RealClock{})
	reporter.Set(report.Kinds(cfg.Report))
	rebuilt := func(what string) { reporter.Note(report.CacheRebuilt, what) }
	evicted := func(what string) { reporter.Note(report.QuotaReached, what) }
	excluded := &exclude.Current{}
	excluded.Set(cfg.Cache.Exclude)
	disk := cache.OpenDisk(ctx, cache.Options{
		Exclude: excluded, Processors: processors,
		Directory: cfg.Cache.Directory, MaxSize: cfg.Cache.MaxSize, Account: cfg.Account.Source, Logger: log,
		Budget:  record.Budget{PerDay: cfg.Cache.WriteBudget, Written: meter.Written},
		Rebuilt: rebuilt, Evicted: evicted,
	})
	defer disk.Close()
	memory := &cache.Cache{}
	if len(cfg.Cache.MemoryOnly) > 0 {
		memory = cache.OpenMemory(ctx, cache.Options{
			Exclude: excluded, Processors: processors,
			Directory: filepath.Join(cfg.Private.Directory, "cache"), MaxSize: cmp.Or(cfg.Cache.MemoryMaxSize, cache.MemorySize()), Logger: log,
			Rebuilt: rebuilt, Evicted: evicted,
		})
	}
	defer memory.Close() //nolint:errcheck // nothing of it is needed any more

	s := &sidecar{
		cfg: cfg, flags: flags, started: time.Now(), log: log, repeated: repeated, recent: recent, reporter: reporter, meter: meter.New(func(ctx context.Context) *request.Info { return dispatch.TraceOf(ctx).Info }), level: level, mirror: mirror, processors: processors,
		disk: disk, caches: cache.Caches{Disk: disk.Cache, Memory: memory, MemoryOnly: cfg.Cache.MemoryOnly, Exclude: excluded},
	}
	s.outage = s.newOutage()
	if err := s.connect(settings); err != nil {
		return err
	}
	s.newDispatcher(settings)
	s.page = &status.Handler{Status: s.status}
	if err := s.newFilter(); err != nil {
		return err
	}
	defer s.filter.Close()
	s.proxy, err = proxy.New(proxy.Options{
		Transport: s.filter, Front: socket.Handler, Upgrade: s.upstream.HTTP1(), TLS: authority.TLSConfig(),
		// For another name of the API server, a client of the forward proxy gets a tunnel, because
		// it would refuse the pod's own certificate.
		ConnectHosts: config.APINames(cfg.Cluster.Domain), Context: s.withTrace, Observe: s.observer(),
		Buffered:   func(r *http.Request) bool { return dispatch.TraceOf(r.Context()).Info.IsUnary() },
		Compressed: request.MayList,
		Pretty:     func(r *http.Request) bool { return dispatch.TraceOf(r.Context()).Info.Pretty },
		Grace:      cfg.Shutdown.Grace, Logger: log,
	})
	if err != nil {
		return err
	}
	return s.serve(ctx, listeners)
}

// sidecar holds the parts that run side by side.
type sidecar struct {
	cfg         config.Config // as at the start
	flags       *pflag.FlagSet
	started     time.Time
	log         *zap.Logger
	repeated    *tally.Log     // for lines that an outage repeats
	recent      *status.Recent // the last errors
	outage      *outage.Keeper
	reporter    *report.Reporter
	page        *status.Handler // shows the status
	level       zap.AtomicLevel // of log
	meter       *meter.Meter
	processors  *processors.Processors
	mirror      *account.Mirror
	disk        *cache.Disk
	caches      cache.Caches // disk and memory
	upstream    *upstream.Upstream
	keys        *principal.Fetcher
	accepted    *principal.Accepted
	credentials *principal.Credentials
	outbox      *outbox.Outbox
	queueOnDisk bool        // the outbox is in the cache on the disk
	loaded      atomic.Bool // loadState was called
	live        *live.Collections
	dispatcher  *dispatch.Dispatcher
	filter      *filter.Filter
	proxy       *proxy.Server
}

// upstreamSettings gives the settings in the terms of package upstream.
func upstreamSettings(cfg config.Config) (upstream.Settings, error) {
	settings := upstream.Settings{
		ConnectTimeout: cfg.Upstream.ConnectTimeout, KeepaliveInterval: cfg.Upstream.KeepaliveInterval, RetryInterval: cfg.Upstream.RetryInterval,
		ProbeInterval: cfg.Upstream.ProbeInterval, ProbeTimeout: cfg.Upstream.ProbeTimeout,
		FailureThreshold: cfg.Upstream.FailureThreshold, SuccessThreshold: cfg.Upstream.SuccessThreshold,
	}
	if cfg.Upstream.Mode == config.ModeRoundRobin {
		settings.Mode = upstream.RoundRobin
	}
	servers, err := cfg.UpstreamServers(os.Getenv)
	if err != nil {
		return settings, err
	}
	for _, server := range servers {
		settings.Servers = append(settings.Servers, upstream.Server{
			URL: server.URL, TLSServerName: server.TLSServerName, CAFile: server.CAFile, LastResort: server.InCluster,
		})
	}
	return settings, nil
}

// urls are those of the API servers, in the order in which they are chosen.
func urls(settings upstream.Settings) (all []string) {
	for _, server := range settings.Servers {
		all = append(all, server.URL.String())
	}
	return all
}

// connect makes the way upstream, and the parts that keep its signing keys and the tokens that it
// has accepted.
func (s *sidecar) connect(settings upstream.Settings) (err error) {
	s.upstream, err = upstream.New(upstream.Options{
		Settings:  settings,
		CAFile:    filepath.Join(s.cfg.Account.Source, account.CAFile),
		TokenFile: filepath.Join(s.cfg.Account.Source, account.TokenFile),
		IsStream:  isStream,
		IsShort:   func(r *http.Request) bool { return dispatch.TraceOf(r.Context()).Info.Class == request.ClassGet },
		OnChange:  s.linkChanged,
		Meter:     s.meter,
		Logger:    s.log,
	})
	if err != nil {
		return err
	}
	s.keys = principal.NewFetcher(principal.FetcherOptions{
		Transport: s.upstream, Facts: s.disk, Token: s.mirror.Token, WaitOnline: s.upstream.WaitOnline, Logger: s.log,
	})
	s.accepted = principal.NewAccepted(principal.AcceptedOptions{Keys: s.keys, Facts: s.disk, Logger: s.log})
	s.credentials = principal.NewCredentials(s.mirror.Token, s.accepted.Add)
	return nil
}

// isStream tells that nobody expects the body of a response to have a byte at any time.
func isStream(r *http.Request) bool {
	return proxy.IsWatch(r) || strings.Contains(r.URL.RawQuery, "follow") && request.Flag(r.URL.Query(), "follow")
}

// linkChanged takes note of a new state of the link.
func (s *sidecar) linkChanged(state upstream.State, reason string) {
	s.disk.Link(state.String(), reason)
	switch state {
	case upstream.Online:
		s.repeated.End()
		s.outage.Up()
	case upstream.Offline:
		s.outage.Down(reason)
	}
}

func (s *sidecar) newDispatcher(settings upstream.Settings) {
	s.live = live.New(live.Options{
		Save: s.cfg.Online.Reads == config.ReadsSave, Upstream: s.upstream, Credentials: s.credentials, Linger: s.cfg.Cache.Linger,
		Rates: s.disk.Cache, Servers: urls(settings), Logger: s.log,
	})
	o := dispatch.Options{
		Upstream: s.upstream, Caches: s.caches, Agents: agent.NewCurrent(s.cfg.Cache.Agents), Credentials: s.credentials,
		Verifier:       principal.NewVerifier(principal.Options{Keys: s.keys, Own: s.podToken, Accepted: s.accepted, Grace: s.cfg.Offline.TokenGrace}),
		ReviewLifetime: s.cfg.Offline.ReviewLifetime,
		WritePatience:  s.cfg.Offline.WritePatience,
		Offline:        s.answeredOffline,
		Live:           s.live,
		Processors:     s.processors,
		Logger:         s.log,
		Repeated:       s.repeated,
	}
	s.outbox = s.newOutbox()
	o.Acceptors = append(o.Acceptors, s.outbox)
	if s.cfg.Offline.Leases || s.cfg.Offline.ElectionAnnotations {
		o.Acceptors = append(o.Acceptors, lease.New(lease.Options{
			Leases: s.cfg.Offline.Leases, Annotations: s.cfg.Offline.ElectionAnnotations, Logger: s.log,
		}))
	}
	if s.cfg.Offline.Tokens {
		o.Acceptors = append(o.Acceptors, token.New(token.Options{}))
	}
	s.dispatcher = dispatch.New(o)
}

// newOutbox makes the queue of Events. It is on the disk, to outlive the pod, unless Events may
// not be written there. Events that were accepted are delivered even when offline.events is off
// by now.
func (s *sidecar) newOutbox() *outbox.Outbox {
	c := s.disk.Cache
	if slices.ContainsFunc(s.cfg.Cache.MemoryOnly, func(r schema.GroupResource) bool { return r.Resource == "events" }) {
		c = s.caches.Memory
	}
	s.queueOnDisk = c == s.disk.Cache
	o := outbox.Options{Store: c, MaxAge: s.cfg.Offline.EventsMaxAge, Logger: s.log, Repeated: s.repeated}
	if s.cfg.Offline.Events {
		o.MaxCount = s.cfg.Offline.EventsMaxCount
	}
	return outbox.New(o)
}

// loadState loads what an earlier run has left in the cache, once the cache is open and known to be
// this cluster's. A further call does nothing.
func (s *sidecar) loadState(ctx context.Context) {
	if s.loaded.Swap(true) {
		return
	}
	if err := s.keys.Load(ctx); err != nil {
		s.log.Warn("cannot load the recorded signing keys; fetching them again", zap.Error(err))
	}
	if err := s.accepted.Load(ctx); err != nil {
		s.log.Warn("cannot load the tokens accepted before the restart", zap.Error(err))
	}
	if err := s.live.Expect(ctx); err != nil {
		s.log.Warn("cannot load what the link has carried before the restart; measuring it again", zap.Error(err))
	}
	s.resumeOutage(ctx)
	s.loadQueue(ctx)
}

// loadQueue loads the Events that were queued in the cache by somebody else.
func (s *sidecar) loadQueue(ctx context.Context) {
	if err := s.outbox.Load(ctx); err != nil {
		s.log.Error("cannot load the Events queued before the start; not delivering them", zap.Error(err))
	}
}

// podToken gives the pod's own token, by which callers are measured while the link is down. There
// is none before the cache is bound: service accounts of two clusters have the same names.
func (s *sidecar) podToken() (string, error) {
	if !s.disk.Bound() {
		return "", errors.New("the cache may be of another cluster")
	}
	return s.mirror.Token()
}

// apply makes the settings hold that can change while the sidecar runs; Key.Runtime
// says which. What can fail comes first.
func (s *sidecar) apply(cfg config.Config) error {
	settings, err := upstreamSettings(cfg)
	if err != nil {
		return err
	}
	filters, err := filterSettings(cfg)
	if err != nil {
		return err
	}
	if err := s.upstream.Update(settings); err != nil {
		return err
	}
	s.live.SetServers(urls(settings))
	s.filter.Set(filters)
	s.level.SetLevel(cfg.Log.Level)
	s.reporter.Set(report.Kinds(cfg.Report))
	s.dispatcher.SetAgents(cfg.Cache.Agents)
	s.caches.SetExclude(cfg.Cache.Exclude)
	return nil
}

// serve runs all parts until ctx ends or one fails. The servers stop first; what
// they were recording is written after that.
func (s *sidecar) serve(ctx context.Context, l *listeners) error {
	if s.disk.Ready() {
		s.loadState(ctx)
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
	parts.Go(func() error { return s.accepted.Run(behind) })
	parts.Go(func() error { return s.outage.Run(behind) })
	parts.Go(func() error {
		return s.reporter.Run(behind, report.Way{Transport: s.upstream, Token: s.mirror.Token, WaitOnline: s.upstream.WaitOnline})
	})
	refresher := relist.Refresher{Upstream: s.upstream, Caches: s.caches, Credentials: s.credentials, Logger: s.log, Clock: clock.RealClock{}}
	parts.Go(func() error { return refresher.Run(behind) })
	parts.Go(func() error { return s.live.Run(behind) })
	parts.Go(func() error { return s.outbox.Run(behind, s.dispatcher) })
	parts.Go(func() error {
		return config.Follow(behind, config.FollowOptions{Flags: s.flags, Config: s.cfg, Apply: s.apply, Logger: s.log})
	})
	adopted := s.loadQueue
	if !s.queueOnDisk {
		adopted = nil
	}
	parts.Go(func() error { return s.disk.Follow(behind, s.loadState, adopted) })
	parts.Go(func() error { return s.caches.Disk.Run(behind) })
	parts.Go(func() error { return s.caches.Memory.Run(behind) })
	parts.Go(func() error { s.releaseMemory(behind, clock.RealClock{}); return nil })

	front, ctx := errgroup.WithContext(ctx)
	front.Go(func() error { return s.proxy.Serve(ctx, l.api) })
	if l.service != nil {
		front.Go(func() error { return s.proxy.Serve(ctx, l.service) })
	}
	if l.connect != nil {
		front.Go(func() error { return s.proxy.ServeConnect(ctx, l.connect) })
	}
	front.Go(func() error { return s.serveDoctor(ctx) })
	if l.metrics != nil {
		front.Go(func() error { return s.serveAdmin(ctx, l.metrics) })
	}
	s.log.Info("ready", zap.String("listen.address", s.cfg.Listen.Address))
	err := front.Wait()
	stop()
	err = errors.Join(err, parts.Wait())
	s.log.Info("stopped", zap.Error(err))
	return err
}
