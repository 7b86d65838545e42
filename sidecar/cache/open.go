package cache

import (
	"bytes"
	"cmp"
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
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/api/exclude"
	"rockpool.dev/sidecar/pod/account"
	"rockpool.dev/sidecar/pod/processors"
	"rockpool.dev/sidecar/pod/slot"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/record"
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
	// Budget bounds what is written to the disk.
	Budget record.Budget
	// Account is the pod's service-account directory. Only a cache on the disk needs it.
	Account string
	// Exclude says what is never recorded; nil: nothing.
	Exclude *exclude.Current
	// Processors are used while the store writes; nil: those that there are.
	Processors *processors.Processors
	Logger     *zap.Logger
	// Rebuilt and Evicted, if not nil, are called with a sentence when an empty file has taken the
	// place of a damaged or lost one, and when recordings were evicted because the cache is full.
	// They must return soon.
	Rebuilt, Evicted func(string)
	Clock            clock.WithTicker // nil means the real one
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
// the pod from working: it is closed then, the log says why, and Run tries again.
func OpenDisk(ctx context.Context, o Options) *Disk {
	syscall.Umask(0o077) // also for the files that SQLite makes
	o.Clock = cmp.Or[clock.WithTicker](o.Clock, clock.RealClock{})
	d := &Disk{Cache: &Cache{exclude: o.Exclude}, options: o}
	d.opener = newOpener(o, d.open, "cannot open the cache; requests pass through, and nothing is recorded until it can be opened")
	d.opener.try(ctx)
	return d
}

func (d *Disk) open(ctx context.Context) (err error) {
	otherVersion := func(path string) bool { return store.OtherVersion(ctx, path) }
	if d.slot, err = slot.Acquire(d.options.Directory, principal.PodUID(d.token()), otherVersion); err != nil {
		return err
	}
	d.seed(ctx)
	db, err := openStore(ctx, d.slot.Path, d.options)
	if err == nil {
		if err = d.bind(ctx, db); err != nil {
			err = errors.Join(err, db.Close())
		}
	}
	if err != nil {
		return errors.Join(err, d.slot.Close())
	}
	d.use(record.Options{DB: db, Name: "disk", Setting: "cache.max-size", Budget: d.options.Budget, Processors: d.options.Processors, Logger: d.options.Logger, Rebuilt: d.options.Rebuilt, Evicted: d.options.Evicted})
	cacheOpen.Set(1)
	d.options.Logger.Info("cache is open", zap.String("path", db.Path()))
	return nil
}

// OpenMemory opens the cache of the resources that are never written to the disk. It lives as
// long as the pod, like the memory-backed directory that holds it.
func OpenMemory(ctx context.Context, o Options) *Cache {
	o.Clock = cmp.Or[clock.WithTicker](o.Clock, clock.RealClock{})
	c := &Cache{exclude: o.Exclude}
	open := func(ctx context.Context) error {
		if err := os.MkdirAll(o.Directory, 0o700); err != nil {
			return err
		}
		db, err := openStore(ctx, o.Directory, o)
		if err == nil {
			c.use(record.Options{DB: db, Name: "memory", Setting: "cache.memory-max-size", Processors: o.Processors, Logger: o.Logger, Rebuilt: o.Rebuilt, Evicted: o.Evicted})
		}
		return err
	}
	c.opener = newOpener(o, open, "cannot open the cache in memory; requests for resources in cache.memory-only pass through unrecorded until it can be opened")
	c.opener.try(ctx)
	return c
}

func openStore(ctx context.Context, directory string, o Options) (*store.DB, error) {
	warn := func(what string) { o.Logger.Warn(what) }
	return store.Open(ctx, directory, store.Options{MaxSize: o.MaxSize, Notice: warn, Replaced: func(what string) {
		warn(what)
		if o.Rebuilt != nil {
			o.Rebuilt(what)
		}
	}})
}

// Close closes the database. It must not be used any more.
func (c *Cache) Close() error {
	if db := c.Store(); db != nil {
		return db.Close()
	}
	return nil
}

// Close closes the database, and frees the slot for the pod that comes next.
func (d *Disk) Close() {
	if d.Store() == nil {
		return
	}
	if err := errors.Join(d.Cache.Close(), d.slot.Close()); err != nil {
		d.options.Logger.Warn("cannot close the cache", zap.Error(err))
	}
}

// Bound tells that nothing in the cache is another cluster's, or another service account's.
func (d *Disk) Bound() bool { return d.Store() == nil || d.bound.Load() }

// Ready tells that the cache is open and bound.
func (d *Disk) Ready() bool { return d.Store() != nil && d.bound.Load() }

// seedTimeout bounds how long a slot waits for a copy of another pod's cache. Without the copy the
// pod starts all the same, with what is in the slot.
const seedTimeout = 2 * time.Second

// seed fills an empty slot, or one that is out of date, with a copy of the first other slot that has
// recorded anything. In a rolling update the new pod starts while the old one still runs, and
// perhaps without a link.
func (d *Disk) seed(ctx context.Context) {
	log := d.options.Logger
	_, err := os.Lstat(filepath.Join(d.slot.Path, store.FileName))
	ctx, cancel := context.WithTimeout(ctx, seedTimeout)
	defer cancel()
	for _, from := range d.slot.Sources(errors.Is(err, fs.ErrNotExist)) {
		err := store.Seed(ctx, d.slot.Path, from)
		switch {
		case err == nil:
			log.Info("the cache begins with a copy of another pod of the workload", zap.String("from", from))
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

// token is the pod's own token; empty: there is none yet.
func (d *Disk) token() string {
	token, err := os.ReadFile(filepath.Join(d.options.Account, account.TokenFile))
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(token))
}

// bind empties a cache that another cluster has written, or a deleted service account of the
// same name. While there is no service-account directory nobody can tell, and bound stays false.
func (d *Disk) bind(ctx context.Context, db *store.DB) error {
	owner := store.Owner{Authorities: clusterDigests(filepath.Join(d.options.Account, account.CAFile))}
	if len(owner.Authorities) == 0 {
		return nil // the mirror reports the fault of the directory
	}
	token := d.token()
	owner.Account = principal.AccountUID(token)
	emptied, err := db.Bind(ctx, owner)
	if err == nil && token != "" {
		d.bound.Store(true)
	}
	if emptied {
		d.options.Logger.Warn("the cache was written for another cluster or service account and has been emptied", zap.String("path", db.Path()))
	}
	return err
}

const (
	// followInterval is how often the cache learns the cluster's authorities, and looks for slots
	// that other pods have left. During a rotation, the old and the new authorities are valid
	// together for much longer.
	followInterval = time.Minute
	// bindInterval is how often a service-account directory is looked for that was missing
	// when the cache was opened.
	bindInterval = time.Second
)

// Follow keeps the cache bound until ctx ends. Without it, a pod that has run through a
// rotation of the authorities would take its own cache for another cluster's. When the cache
// is open and bound, Follow calls bound.
//
// It also takes over the writes that are queued in slots that other pods have left, and then calls
// adopted. Nil: the writes stay there, because this pod would not deliver them.
func (d *Disk) Follow(ctx context.Context, bound, adopted func(context.Context)) error {
	if !d.opener.wait(ctx) {
		return nil
	}
	db := d.Store()
	var failing string
	ready := false
	for {
		err := d.bind(ctx, db)
		if !ready && d.Ready() {
			ready = true
			bound(ctx)
		}
		if ready {
			err = errors.Join(err, d.slot.Advance(func(left string) error { return d.adopt(ctx, db, left, adopted) }))
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			failing = ""
		case failing != err.Error():
			failing = err.Error()
			d.options.Logger.Warn("cannot keep the cache's files up to date; trying again", zap.Error(err))
		}
		interval := followInterval
		if !ready {
			interval = bindInterval
		}
		timer := d.options.Clock.NewTimer(interval)
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// adopt takes over the writes that are queued in a slot that another pod has left.
func (d *Disk) adopt(ctx context.Context, db *store.DB, left string, adopted func(context.Context)) error {
	if adopted == nil {
		return nil
	}
	n, err := db.Adopt(ctx, left)
	if n > 0 {
		d.options.Logger.Info("Events that a pod of the workload has left are delivered by this one", zap.String("from", left), zap.Int("count", n))
		adopted(ctx)
	}
	if errors.Is(err, store.ErrOwner) {
		d.options.Logger.Warn("a pod of another cluster or service account has left Events; they are not delivered", zap.String("from", left))
		return nil
	}
	return err
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
