// Package janitor removes caches that no pod has used for a long time from a node's cache
// volume: the caches of workloads that were deleted, or moved to another node.
//
// It knows the volume's layout, namespace/serviceaccount/workload/slot, and does not call the
// API server. The age and the lock of a cache show whether a pod uses it, also while the link
// is down. The janitor leaves alone all files and directories that do not fit the layout.
//
// Three rules protect the caches that pods need:
//   - The janitor removes a slot only under its lock, which a running sidecar holds. It first
//     renames the slot, so that no pod finds half of one.
//   - It removes the directories above only under the volume's lock, which package prepare
//     takes to create them.
//   - It removes a workload's directory only if that is old too. Package prepare updates its
//     change time, so the directory lasts until the sidecar starts.
//
// The volume's upper levels belong to root, and the janitor follows no link in them. A
// workload's directory belongs to the pod, and no path in it leads out of it (os.Root).
package janitor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/pod/flock"
)

// DefaultMaxAge is the default of offline.token-grace: after that time no token gives access
// to the cache before the pod has been online again.
const DefaultMaxAge = 30 * 24 * time.Hour

// Options configure a Janitor.
type Options struct {
	Root   string        // the cache volume's mount point
	MaxAge time.Duration // caches used within this time stay; 0 = of any age
	DryRun bool          // only log what would be removed
	// MaxSlots is how many slots may stay; 0 = any number. MaxBytes is how much of the disk they may
	// take; 0 = any amount. Beyond either, those go that were not used for the longest time, but none
	// that was used within minAge or that a pod holds.
	MaxSlots int
	MaxBytes int64
	// Spare is the directory of a workload whose slots stay, namespace/serviceaccount/workload; empty =
	// none.
	Spare string

	Patience time.Duration // how long to wait for the volume's lock; 0 = flock.Patience

	Clock      clock.Clock           // nil = the system's
	Logger     *zap.Logger           // nil = none
	Registerer prometheus.Registerer // nil = no metrics
}

// Janitor cleans one volume.
type Janitor struct {
	Options
	metrics metrics
}

// Round is the result of one scan of the volume.
type Round struct {
	Removed   int   // slots removed; in a dry run, slots that would be
	Freed     int64 // disk space of the removed slots, in bytes
	Young     int   // slots used within MaxAge
	Held      int   // old slots that a pod holds
	Kept      int64 // disk space of the young and held slots, in bytes
	Unknown   int   // files and directories that do not fit the layout
	Emptied   int   // empty directories removed
	Unreached int   // paths that could not be read or removed; the error says why
}

// New returns a janitor. An error names the invalid option.
func New(o Options) (*Janitor, error) {
	if o.Root == "" {
		return nil, errors.New("root: the mount point of the cache volume is required")
	}
	if o.MaxSlots < 0 {
		return nil, fmt.Errorf("max-slots %d: must not be negative", o.MaxSlots)
	}
	if o.MaxBytes < 0 {
		return nil, fmt.Errorf("max-size %d: must not be negative", o.MaxBytes)
	}
	if o.MaxAge < 0 {
		return nil, fmt.Errorf("max-age %s: must not be negative", o.MaxAge)
	}
	o.Patience = cmp.Or(o.Patience, flock.Patience)
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	return &Janitor{Options: o, metrics: newMetrics(o.Registerer)}, nil
}

// Run scans the volume at once and then every interval, until ctx ends. It logs failures, and
// the next round retries.
func (j *Janitor) Run(ctx context.Context, interval time.Duration) {
	for {
		_, _ = j.Once(ctx) // logs the error
		timer := j.Clock.NewTimer(interval)
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// Once scans the whole volume. It continues after a failure, and returns all errors joined.
func (j *Janitor) Once(ctx context.Context) (Round, error) {
	r := round{Janitor: j, latest: j.Clock.Now().Add(-minAge)}
	if j.MaxAge > 0 {
		r.before = j.Clock.Now().Add(-j.MaxAge)
	}
	err := r.visitVolume(ctx)
	// The same again, with a lower age. Only then it is known which of those slots must stay, so
	// that others have to go in their place. What could not be read does not keep the rest from its
	// bounds.
	for before, ok := r.bound(); ok && ctx.Err() == nil; before, ok = r.bound() {
		again := round{Janitor: j, before: before, latest: r.latest, bounds: true}
		err = again.visitVolume(ctx)
		if !j.DryRun { // which leaves what it would remove, and counts it again
			again.Removed, again.Freed, again.Emptied = again.Removed+r.Removed, again.Freed+r.Freed, again.Emptied+r.Emptied
		}
		r = again
	}
	j.metrics.observe(r.Round, err, j.Clock.Now(), j.DryRun)
	fields := []zap.Field{
		zap.Bool("dryRun", j.DryRun), zap.Int("removed", r.Removed), zap.Int64("freedBytes", r.Freed),
		zap.Int("young", r.Young), zap.Int("held", r.Held), zap.Int64("keptBytes", r.Kept),
		zap.Int("unknown", r.Unknown), zap.Int("emptied", r.Emptied),
	}
	if err != nil {
		j.Logger.Error("round ended with errors", append(fields, zap.Error(err))...)
	} else {
		j.Logger.Info("round ended", fields...)
	}
	return r.Round, err
}

// round is one scan of the volume.
type round struct {
	*Janitor
	Round
	before time.Time // a slot last used before this time is old
	latest time.Time // the latest such time for MaxSlots and MaxBytes
	bounds bool      // for MaxSlots and MaxBytes
	spared bool      // the slots of the present workload are not old
	lock   *os.File  // the volume, for withLock
	busy   bool      // another process has held the lock for longer than Patience
	errs   []error
	used   []usage // of the young slots

	fixed      int   // slots that must stay, because a pod holds them or may be about to
	fixedBytes int64 // their disk space
}

func (r *round) visitVolume(ctx context.Context) error {
	root, err := os.OpenRoot(r.Root)
	if err != nil {
		return fmt.Errorf("cache volume: %w", err)
	}
	defer root.Close()
	if r.lock, err = root.Open("."); err != nil {
		return fmt.Errorf("cache volume: %w", err)
	}
	defer r.lock.Close()
	r.visitLevel(ctx, root, "", 0)
	return errors.Join(append(r.errs, ctx.Err())...)
}

// names match the directories above the slots: namespace, service account, and workload,
// which is "kind.name".
var names = [...]*regexp.Regexp{
	regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`),
	regexp.MustCompile(`^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$`),
	regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?\.[a-z0-9]([-.a-z0-9]*[a-z0-9])?$`),
}

// visitLevel visits the directories of namespaces, of service accounts, or of workloads.
func (r *round) visitLevel(ctx context.Context, parent *os.Root, at string, depth int) {
	for _, name := range r.list(ctx, parent, at) {
		if ctx.Err() != nil {
			return
		}
		below := path.Join(at, name)
		if below == stampName || below == r.Spare {
			continue
		}
		child := r.enter(parent, name, below, names[depth])
		if child == nil {
			continue
		}
		if depth == len(names)-1 {
			r.visitWorkload(ctx, parent, child, name, below)
		} else {
			r.visitLevel(ctx, child, below, depth+1)
			r.withLock(below, func() { r.removeEmpty(parent, name, below) })
		}
		child.Close()
	}
}

// enter opens a directory that package prepare can have created. It returns nil for others.
func (r *round) enter(parent *os.Root, name, at string, pattern *regexp.Regexp) *os.Root {
	info, err := parent.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		r.fail(at, err)
		return nil
	}
	if !info.IsDir() || info.Mode().Perm() != 0o700 || !pattern.MatchString(name) {
		r.skipUnknown(at)
		return nil
	}
	child, err := parent.OpenRoot(name)
	if err != nil {
		r.fail(at, err)
		return nil
	}
	opened, err := child.Stat(".")
	if err == nil && !os.SameFile(info, opened) {
		err = errors.New("was replaced while it was opened")
	}
	if err != nil {
		child.Close()
		r.fail(at, err)
		return nil
	}
	return child
}

// visitWorkload removes the old slots of a workload, and then its directory if that is old.
func (r *round) visitWorkload(ctx context.Context, account, workload *os.Root, name, at string) {
	r.withLock(at, func() {
		info, err := workload.Stat(".") // before a removal changes it
		if err != nil {
			r.fail(at, err)
			return
		}
		// A pod may be about to use one of them.
		r.spared = r.bounds && changeTime(info).After(r.Clock.Now().Add(-minAge))
		for _, entry := range r.list(ctx, workload, at) {
			if ctx.Err() != nil {
				return
			}
			r.visitSlot(ctx, workload, entry, path.Join(at, entry))
		}
		if changeTime(info).Before(r.before) {
			r.removeEmpty(account, name, at)
		}
	})
}

// withLock calls do under the volume's lock: meanwhile package prepare creates no directory. If
// another process keeps the lock, it does nothing: a pod may be about to use the directory. In the
// rest of the round it no longer waits for the lock.
func (r *round) withLock(at string, do func()) {
	patience := r.Patience
	if r.busy {
		patience = 0
	}
	if err := flock.Take(r.lock, unix.LOCK_EX, patience, r.Clock); err != nil {
		r.busy = errors.Is(err, flock.ErrHeld)
		r.fail(at, err)
		return
	}
	r.busy = false
	defer unix.Flock(int(r.lock.Fd()), unix.LOCK_UN) //nolint:errcheck // cannot fail
	do()
}

func (r *round) removeEmpty(parent *os.Root, name, at string) {
	if r.DryRun {
		return
	}
	switch err := parent.Remove(name); {
	case err == nil:
		r.Emptied++
	case !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) && !errors.Is(err, fs.ErrNotExist):
		r.fail(at, err)
	}
}

func (r *round) skipUnknown(at string) {
	r.Unknown++
	r.Logger.Debug("not part of Rockpool's layout; leaving it alone", zap.String("path", at))
}

// fail notes what could not be done. That the time is over is said once, by visitVolume.
func (r *round) fail(at string, err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return
	}
	r.Unreached++
	r.errs = append(r.errs, fmt.Errorf("%s: %w", at, withoutPath(err)))
}

// withoutPath removes the part of an error that repeats the path.
func withoutPath(err error) error {
	var named *fs.PathError
	if errors.As(err, &named) {
		return named.Err
	}
	return err
}

// list returns the names in a directory, or those that it has read when the context ends.
func (r *round) list(ctx context.Context, directory *os.Root, at string) (names []string) {
	err := eachName(ctx, directory, ".", func(name string) error {
		names = append(names, name)
		return nil
	})
	if err != nil {
		r.fail(at, err)
	}
	return names
}

// listSize is how many names are read from a directory at a time.
const listSize = 256

// eachName calls do with the names in a directory, until the context ends: there may be millions.
// It opens only directories: otherwise a pod could block the janitor with a named pipe in place of
// one.
func eachName(ctx context.Context, in *os.Root, directory string, do func(name string) error) error {
	dir, err := in.OpenFile(directory, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(listSize)
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := do(name); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// removedSuffix marks a slot that is being removed. Pods ignore such names.
const removedSuffix = ".removed"
