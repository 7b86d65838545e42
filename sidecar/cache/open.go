package cache

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

	"rockpool.dev/sidecar/pod/account"
	"rockpool.dev/sidecar/pod/slot"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/store"
)

var cacheOpen = promauto.NewGauge(prometheus.GaugeOpts{
	Name: "rockpool_cache_open",
	Help: "1 when the cache is open, 0 when requests only pass through because it is not.",
})

// Options say where a cache is.
type Options struct {
	// Directory is that of the workload on the node's disk, or one in memory.
	Directory string
	// MaxSize bounds the cache, in bytes.
	MaxSize int64
	// Account is the pod's service-account directory. Only a cache on the disk needs it.
	Account string
	Logger  *zap.Logger
}

// Disk is a cache on the node's disk. It outlives the pod, so it must not answer for another
// cluster or service account.
type Disk struct {
	*Cache
	options Options
	slot    *slot.Slot
	bound   atomic.Bool // it is the cache of the pod's cluster and service account
}

// OpenDisk opens the pod's cache on the node's disk. A cache that cannot be opened must not keep
// the pod from working: it is closed then, and the log says why.
func OpenDisk(ctx context.Context, o Options) *Disk {
	syscall.Umask(0o077) // also for the files that SQLite makes
	d := &Disk{Cache: &Cache{}, options: o}
	if err := d.open(ctx); err != nil {
		d.Close()
		o.Logger.Error("cannot open the cache; requests pass through, and nothing is recorded",
			zap.String("cache.directory", o.Directory), zap.Error(err))
		return &Disk{Cache: &Cache{}, options: o}
	}
	cacheOpen.Set(1)
	o.Logger.Info("cache is open", zap.String("path", d.db.Path()))
	return d
}

func (d *Disk) open(ctx context.Context) (err error) {
	if d.slot, err = slot.Acquire(d.options.Directory); err != nil {
		return err
	}
	seed(ctx, d.slot, d.options.Logger)
	if d.Cache, err = open(ctx, "disk", d.slot.Path, d.options); err != nil {
		return err
	}
	return d.bind(ctx)
}

// OpenMemory opens the cache of the resources that are never written to the disk. It lives as
// long as the pod, like the memory-backed directory that holds it.
func OpenMemory(ctx context.Context, o Options) *Cache {
	err := os.MkdirAll(o.Directory, 0o700)
	if err == nil {
		var c *Cache
		if c, err = open(ctx, "memory", o.Directory, o); err == nil {
			return c
		}
	}
	o.Logger.Error("cannot open the cache in memory; requests for resources in cache.memory-only pass through unrecorded",
		zap.String("directory", o.Directory), zap.Error(err))
	return &Cache{}
}

func open(ctx context.Context, name, directory string, o Options) (*Cache, error) {
	db, err := store.Open(ctx, directory, store.Options{MaxSize: o.MaxSize, Notice: func(what string) { o.Logger.Warn(what) }})
	if err != nil {
		return &Cache{}, err
	}
	return New(db, name, o.Logger), nil
}

// Close closes the database. It must not be used any more.
func (c *Cache) Close() error {
	if c.db == nil {
		return nil
	}
	return c.db.Close()
}

// Close closes the database, and frees the slot for the pod that comes next.
func (d *Disk) Close() {
	err := d.Cache.Close()
	if d.slot != nil {
		err = errors.Join(err, d.slot.Close())
	}
	if err != nil {
		d.options.Logger.Warn("cannot close the cache", zap.Error(err))
	}
}

// Bound tells that nothing in the cache is another cluster's, or another service account's.
func (d *Disk) Bound() bool { return d.db == nil || d.bound.Load() }

// seedTimeout bounds how long a new slot waits for a copy of another pod's cache. Without the
// copy the pod starts all the same, with an empty cache.
const seedTimeout = 2 * time.Second

// seed fills a new slot with a copy of the first sibling that has recorded anything. In a
// rolling update the new pod starts while the old one still runs, and perhaps without a link.
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
			log.Info("the cache begins with a copy of another pod of the workload", zap.String("from", sibling))
			return
		case errors.Is(err, store.ErrNotFound):
		default:
			log.Warn("cannot copy the cache of another pod of the workload; trying the next", zap.Error(err))
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// bind empties a cache that another cluster has written, or a deleted service account of the
// same name. While there is no service-account directory nobody can tell, and bound stays false.
func (d *Disk) bind(ctx context.Context) error {
	owner := store.Owner{Authorities: clusterDigests(filepath.Join(d.options.Account, account.CAFile))}
	if len(owner.Authorities) == 0 {
		return nil // the mirror reports the fault of the directory
	}
	token, noToken := os.ReadFile(filepath.Join(d.options.Account, account.TokenFile))
	if noToken == nil {
		owner.Account = principal.AccountUID(string(bytes.TrimSpace(token)))
	}
	emptied, err := d.db.Bind(ctx, owner)
	if err == nil && noToken == nil {
		d.bound.Store(true)
	}
	if emptied {
		d.options.Logger.Warn("the cache was written for another cluster or service account and has been emptied", zap.String("path", d.db.Path()))
	}
	return err
}

const (
	// rebindInterval is how often the cache learns the cluster's authorities. During a
	// rotation, the old and the new one are valid together for much longer.
	rebindInterval = 10 * time.Minute
	// bindInterval is how often a service-account directory is looked for that was missing
	// when the cache was opened.
	bindInterval = time.Second
)

// Follow keeps the cache bound until ctx ends. Without it, a pod that has run through a
// rotation of the authorities would take its own cache for another cluster's. When the cache
// becomes bound, Follow calls bound.
func (d *Disk) Follow(ctx context.Context, bound func(context.Context)) error {
	if d.db == nil {
		return nil
	}
	var failing string
	for {
		interval := rebindInterval
		if !d.Bound() {
			interval = bindInterval
		}
		timer := time.NewTimer(interval)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		before := d.Bound()
		err := d.bind(ctx)
		if !before && d.Bound() {
			bound(ctx)
		}
		switch {
		case err == nil:
			failing = ""
		case failing != err.Error():
			failing = err.Error()
			d.options.Logger.Warn("cannot note the cluster's authorities in the cache; trying again", zap.Error(err))
		}
	}
}

// clusterDigests identifies a cluster by the public keys of the authorities in a PEM file. The
// keys stay when a certificate is renewed.
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
