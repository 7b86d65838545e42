// Package janitor removes from a node's cache volume what no pod has used for a
// long time: the caches of workloads that were deleted or moved elsewhere.
//
// It knows the volume's layout, namespace/serviceaccount/workload/slot, and asks
// the API server for nothing: whether a cache is of use is told by its age and its
// lock, also while the link is down. What does not look as Rockpool lays it out is
// left alone.
//
// Three things keep it from taking away what a pod needs. A slot is removed only
// under its lock, which a running sidecar holds, and by being renamed first, so that
// no pod ever finds half of one. The directories above are removed under the volume's
// lock, which package prepare takes to make them. And a workload's directory has to be
// as old as a slot: prepare marks it, so it outlasts the time until the sidecar starts.
//
// The volume's upper levels belong to root, and no link in them is followed; a
// workload's directory is the pod's, and nothing that lies in it leads out of it
// (os.Root).
package janitor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
	"k8s.io/utils/clock"
)

// DefaultMaxAge is as long as a token of the pod is believed offline by default: after
// that nobody may read the cache without having been online first.
const DefaultMaxAge = 30 * 24 * time.Hour

// Options of a janitor.
type Options struct {
	Root   string        // the cache volume's mount point
	MaxAge time.Duration // what has been used since then stays; must be positive
	DryRun bool          // only say what would be removed

	Clock      clock.Clock           // nil = the system's
	Logger     *zap.Logger           // nil = none
	Registerer prometheus.Registerer // nil = no metrics
}

// Janitor looks after one volume.
type Janitor struct {
	Options
	metrics metrics
}

// Round tells what one look at the volume came to.
type Round struct {
	Removed   int   // slots; in a dry run those that would be
	Freed     int64 // bytes on the disk that they took
	Young     int   // slots that were used too lately
	Held      int   // slots that are old, but a pod has them now
	Kept      int64 // bytes of the slots that stay
	Unknown   int   // files and directories that are not Rockpool's
	Emptied   int   // directories above slots that were removed
	Unreached int   // what could not be read or removed; the error says why
}

// New gives a janitor. An error names the option that is wrong.
func New(o Options) (*Janitor, error) {
	if o.Root == "" {
		return nil, errors.New("root: where the cache volume is mounted is needed")
	}
	if o.MaxAge <= 0 {
		return nil, fmt.Errorf("max-age %s: must be more than 0", o.MaxAge)
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	return &Janitor{Options: o, metrics: newMetrics(o.Registerer)}, nil
}

// Run looks at the volume now and then every interval, until ctx ends. What fails is
// logged and tried again in the next round.
func (j *Janitor) Run(ctx context.Context, interval time.Duration) {
	for {
		_, _ = j.Once(ctx) // logged there
		timer := j.Clock.NewTimer(interval)
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// Once looks at the whole volume. It goes on behind what fails; the error is of all
// that did.
func (j *Janitor) Once(ctx context.Context) (Round, error) {
	r := round{Janitor: j, before: j.Clock.Now().Add(-j.MaxAge)}
	err := r.volume(ctx)
	j.metrics.observe(r.Round, err, j.Clock.Now(), j.DryRun)
	fields := []zap.Field{
		zap.Bool("dryRun", j.DryRun), zap.Int("removed", r.Removed), zap.Int64("freedBytes", r.Freed), zap.Int("young", r.Young), zap.Int("held", r.Held),
		zap.Int64("keptBytes", r.Kept), zap.Int("unknown", r.Unknown), zap.Int("emptied", r.Emptied),
	}
	if err != nil {
		j.Logger.Error("round ended with errors", append(fields, zap.Error(err))...)
	} else {
		j.Logger.Info("round ended", fields...)
	}
	return r.Round, err
}

// round is one look at the volume.
type round struct {
	*Janitor
	Round
	before time.Time // what was used last before that is old
	lock   *os.File  // the volume, to be locked
	errs   []error
}

func (r *round) volume(ctx context.Context) error {
	root, err := os.OpenRoot(r.Root)
	if err != nil {
		return fmt.Errorf("cache volume: %w", err)
	}
	defer root.Close()
	if r.lock, err = root.Open("."); err != nil {
		return fmt.Errorf("cache volume: %w", err)
	}
	defer r.lock.Close()
	r.level(ctx, root, "", 0)
	return errors.Join(append(r.errs, ctx.Err())...)
}

// names are what the levels above the slots can be called: DNS labels and names, and
// "kind.name" for the workload.
var names = [...]*regexp.Regexp{
	regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`),
	regexp.MustCompile(`^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$`),
	regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?\.[a-z0-9]([-.a-z0-9]*[a-z0-9])?$`),
}

// level looks at the directories of namespaces, of service accounts, or of workloads.
func (r *round) level(ctx context.Context, parent *os.Root, at string, depth int) {
	for _, name := range r.list(parent, ".", at) {
		if ctx.Err() != nil {
			return
		}
		below := path.Join(at, name)
		child := r.enter(parent, name, below, names[depth])
		if child == nil {
			continue
		}
		if depth == len(names)-1 {
			r.workload(ctx, parent, child, name, below)
		} else {
			r.level(ctx, child, below, depth+1)
			r.locked(below, func() { r.removeEmpty(parent, name, below) })
		}
		child.Close()
	}
}

// enter opens a directory that prepare could have made, or gives nil.
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
		r.unknown(at)
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

// workload removes the old slots of a workload, and then its directory if that is as old.
func (r *round) workload(ctx context.Context, account, workload *os.Root, name, at string) {
	r.locked(at, func() {
		info, err := workload.Stat(".") // before anything in it changes
		if err != nil {
			r.fail(at, err)
			return
		}
		for _, entry := range r.list(workload, ".", at) {
			if ctx.Err() != nil {
				return
			}
			r.slot(workload, entry, path.Join(at, entry))
		}
		if changeTime(info).Before(r.before) {
			r.removeEmpty(account, name, at)
		}
	})
}

// locked calls do while no pod's directory is being made.
func (r *round) locked(at string, do func()) {
	for {
		err := unix.Flock(int(r.lock.Fd()), unix.LOCK_EX)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			r.fail(at, fmt.Errorf("lock the cache volume: %w", err))
			return
		}
	}
	defer unix.Flock(int(r.lock.Fd()), unix.LOCK_UN) //nolint:errcheck // a lock that is held can be given up
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

func (r *round) unknown(at string) {
	r.Unknown++
	r.Logger.Debug("not laid out by Rockpool, left alone", zap.String("path", at))
}

func (r *round) fail(at string, err error) {
	r.Unreached++
	r.errs = append(r.errs, fmt.Errorf("%s: %w", at, strip(err)))
}

// strip leaves out the part of an error that repeats a path.
func strip(err error) error {
	var named *fs.PathError
	if errors.As(err, &named) {
		return named.Err
	}
	return err
}

// list names the entries of a directory. Nothing but a directory is opened, so that a
// named pipe that a pod puts in its place cannot make the janitor wait.
func (r *round) list(in *os.Root, directory, at string) []string {
	entries, err := list(in, directory)
	if err != nil {
		r.fail(at, err)
	}
	return entries
}

func list(in *os.Root, directory string) ([]string, error) {
	dir, err := in.OpenFile(directory, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}

// removedSuffix marks a slot that is being removed. No pod looks at such a name.
const removedSuffix = ".removed"
