package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rockpool.dev/sidecar/config"
	"rockpool.dev/sidecar/dispatch"
	"rockpool.dev/sidecar/pod/account"
	"rockpool.dev/sidecar/pod/slot"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/sidecar/replay"
	"rockpool.dev/sidecar/write/outbox"
	"rockpool.dev/store"
)

var cacheOpen = promauto.NewGauge(prometheus.GaugeOpts{
	Name: "rockpool_cache_open",
	Help: "1 when the cache is open, 0 when requests only pass through because it is not.",
})

// cache is a store with what writes and reads it. Without one (db is nil) requests
// pass through and offline nothing is known.
type cache struct {
	dispatch.Cache
	slot  *slot.Slot
	db    *store.DB
	bound atomic.Bool // it is of the pod's cluster
}

// openDisk opens the pod's cache on the node's disk. A cache that cannot be opened
// must not keep the pod from working.
func openDisk(ctx context.Context, cfg config.Config, log *zap.Logger) *cache {
	syscall.Umask(0o077) // also for the files that SQLite makes
	c := &cache{}
	if err := c.openDisk(ctx, cfg, log); err != nil {
		c.close(log)
		log.Error("the cache cannot be opened: requests pass through, nothing is recorded", zap.String("cache.directory", cfg.Cache.Directory), zap.Error(err))
		return &cache{}
	}
	cacheOpen.Set(1)
	log.Info("cache is open", zap.String("path", c.db.Path()))
	return c
}

func (c *cache) openDisk(ctx context.Context, cfg config.Config, log *zap.Logger) (err error) {
	if c.slot, err = slot.Acquire(cfg.Cache.Directory); err != nil {
		return err
	}
	seed(ctx, c.slot, log)
	if err := c.open(ctx, "disk", c.slot.Path, cfg.Cache.MaxSize, log); err != nil {
		return err
	}
	return c.bind(ctx, cfg, log)
}

// seedTimeout bounds how long a new slot waits for what another pod of the workload has
// recorded. Without it the pod starts all the same, with an empty cache.
const seedTimeout = 2 * time.Second

// seed fills a new slot from the first of its siblings that has something: in a rolling
// update the new pod starts beside the old one, and perhaps without a link.
func seed(ctx context.Context, s *slot.Slot, log *zap.Logger) {
	if _, err := os.Lstat(filepath.Join(s.Path, store.FileName)); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, seedTimeout)
	defer cancel()
	for _, sibling := range s.Siblings() {
		err := store.Seed(ctx, s.Path, sibling)
		switch {
		case err == nil:
			log.Info("the cache begins with what another pod of the workload has recorded", zap.String("from", sibling))
			return
		case errors.Is(err, store.ErrNotFound):
		default:
			log.Warn("what another pod of the workload has recorded cannot be taken over", zap.Error(err))
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// bind empties the cache when it is of another cluster than the pod, or of a service account that
// is gone and had the name of the pod's. While there is no service-account directory nobody can
// tell, and bound stays as it is.
func (c *cache) bind(ctx context.Context, cfg config.Config, log *zap.Logger) error {
	owner := store.Owner{Authorities: clusterDigests(filepath.Join(cfg.Account.Source, account.CAFile))}
	if len(owner.Authorities) == 0 {
		return nil // the mirror says what is wrong with the directory
	}
	token, noToken := os.ReadFile(filepath.Join(cfg.Account.Source, account.TokenFile))
	if noToken == nil {
		owner.Account = principal.AccountUID(string(bytes.TrimSpace(token)))
	}
	emptied, err := c.db.Bind(ctx, owner)
	if err == nil && noToken == nil {
		c.bound.Store(true)
	}
	if emptied {
		log.Warn("the cache was of another cluster or service account and has been emptied", zap.String("path", c.db.Path()))
	}
	return err
}

// rebindInterval is how often the cache learns the cluster's authorities. While
// one is rotated, old and new stand beside each other for much longer.
const rebindInterval = 10 * time.Minute

// bindInterval is how often the service-account directory is looked for that was not
// there when the cache was opened.
const bindInterval = time.Second

// follow learns the cluster's authorities until ctx ends: a pod that has run
// through a rotation would else find its own cache to be another cluster's. When
// the cache becomes bound, recall is called.
func (c *cache) follow(ctx context.Context, cfg config.Config, recall func(context.Context), log *zap.Logger) error {
	var failing string
	for {
		interval := rebindInterval
		if !c.bound.Load() {
			interval = bindInterval
		}
		timer := time.NewTimer(interval)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		bound := c.bound.Load()
		err := c.bind(ctx, cfg, log)
		if !bound && c.bound.Load() {
			recall(ctx)
		}
		switch {
		case err == nil:
			failing = ""
		case failing != err.Error():
			failing = err.Error()
			log.Warn("noting the cluster's authorities in the cache", zap.Error(err))
		}
	}
}

// openMemory opens the cache of what may not be written to the disk. It lives as
// long as the pod, like the private directory that it is in.
func openMemory(ctx context.Context, cfg config.Config, log *zap.Logger) *cache {
	c := &cache{}
	if len(cfg.Cache.MemoryOnly) == 0 {
		return c
	}
	directory := filepath.Join(cfg.Private.Directory, "cache")
	err := os.MkdirAll(directory, 0o700)
	if err == nil {
		err = c.open(ctx, "memory", directory, cfg.Cache.MemoryMaxSize, log)
	}
	if err != nil {
		log.Error("the cache in memory cannot be opened: what is in cache.memory-only passes through, nothing of it is recorded", zap.String("directory", directory), zap.Error(err))
		return &cache{}
	}
	return c
}

func (c *cache) open(ctx context.Context, name, directory string, size int64, log *zap.Logger) (err error) {
	c.db, err = store.Open(ctx, directory, store.Options{MaxSize: size, Notice: func(what string) { log.Warn(what) }})
	if err != nil {
		return err
	}
	c.Recorder = record.New(record.Options{DB: c.db, Name: name, Logger: log})
	c.Replayer = replay.New(c.db, nil, c.Recorder.Used)
	return nil
}

// newOutbox makes the queue of Events, which is on the disk, to outlive the pod, unless
// Events may not be written there. What was accepted is delivered also when offline.events
// is off by now.
func newOutbox(disk, memory *cache, cfg config.Config, log *zap.Logger) *outbox.Outbox {
	db := disk.db
	if slices.ContainsFunc(cfg.Cache.MemoryOnly, func(r schema.GroupResource) bool { return r.Resource == "events" }) {
		db = memory.db
	}
	if db == nil {
		return nil
	}
	o := outbox.Options{Store: db, MaxAge: cfg.Offline.EventsMaxAge, Logger: log}
	if cfg.Offline.Events {
		o.MaxCount = cfg.Offline.EventsMaxCount
	}
	return outbox.New(o)
}

func (c *cache) close(log *zap.Logger) {
	if c.db != nil {
		if err := c.db.Close(); err != nil {
			log.Warn("closing the cache", zap.Error(err))
		}
	}
	if c.slot != nil {
		if err := c.slot.Close(); err != nil {
			log.Warn("closing the cache", zap.Error(err))
		}
	}
}

// clusterDigests identifies the cluster by the public keys of the authorities in
// a PEM file: they stay when a certificate is renewed.
func clusterDigests(path string) (digests []string) {
	rest, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			slices.Sort(digests)
			return slices.Compact(digests)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			continue
		}
		sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
		digests = append(digests, hex.EncodeToString(sum[:]))
	}
}
