package janitor

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"rockpool.dev/sidecar/pod/slot"
)

// slot removes an entry of a workload's directory if it is a slot that is old and free.
func (r *round) slot(workload *os.Root, name, at string) {
	info, err := workload.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		r.fail(at, err)
		return
	}
	free, leftover := strings.CutSuffix(name, removedSuffix)
	switch {
	case !info.IsDir() || !slot.Is(free):
		r.unknown(at)
	case leftover: // of a round that was interrupted
		if !r.DryRun {
			r.discard(workload, name, at)
		}
	default:
		r.removeOld(workload, name, at)
	}
}

func (r *round) removeOld(workload *os.Root, name, at string) {
	keep := func(count *int, use usage) {
		*count++
		r.Kept += use.bytes
	}
	use, err := measure(workload, name)
	if err != nil {
		r.fail(at, err)
		return
	}
	if !use.last.Before(r.before) {
		keep(&r.Young, use)
		return
	}
	lock, err := slot.Lock(workload, name)
	switch {
	case errors.Is(err, slot.ErrHeld):
		keep(&r.Held, use)
		return
	case errors.Is(err, fs.ErrNotExist):
		// A pod died between making it and locking it. Only an empty one can be removed
		// without the lock.
		r.removeEmpty(workload, name, at)
		return
	case err != nil:
		r.fail(at, err)
		return
	}
	defer lock.Close()
	// Once more: a pod may have come and gone since.
	if use, err = measure(workload, name); err != nil {
		r.fail(at, err)
		return
	}
	if !use.last.Before(r.before) {
		keep(&r.Young, use)
		return
	}
	if !r.DryRun && !r.remove(workload, name, at) {
		return
	}
	r.Removed++
	r.Freed += use.bytes
	r.Logger.Info("removed", zap.Bool("dryRun", r.DryRun), zap.String("slot", at), zap.Time("lastUse", use.last), zap.Int64("bytes", use.bytes))
}

// remove takes a slot away in one step, and then deletes what was in it.
func (r *round) remove(workload *os.Root, name, at string) bool {
	gone := name + removedSuffix
	if !r.discard(workload, gone, at) { // of a round that was interrupted
		return false
	}
	if err := workload.Rename(name, gone); err != nil {
		r.fail(at, err)
		return false
	}
	return r.discard(workload, gone, at)
}

func (r *round) discard(workload *os.Root, name, at string) bool {
	if err := workload.RemoveAll(name); err != nil {
		r.fail(at, err)
		return false
	}
	return true
}

// usage of a slot.
type usage struct {
	last  time.Time // the newest modification of anything in it
	bytes int64     // on the disk
}

// measure looks at a slot and what lies in it, which is files only. What vanishes
// meanwhile does not count. Access times do not count either: many nodes do not keep
// them, and backups change them.
func measure(workload *os.Root, name string) (usage, error) {
	entries, err := list(workload, name)
	if err != nil {
		return usage{}, err
	}
	var use usage
	for _, entry := range append(entries, ".") {
		info, err := workload.Lstat(path.Join(name, entry))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return usage{}, err
		}
		if info.ModTime().After(use.last) {
			use.last = info.ModTime()
		}
		use.bytes += info.Sys().(*syscall.Stat_t).Blocks * 512
	}
	return use, nil
}

func changeTime(info fs.FileInfo) time.Time {
	return time.Unix(info.Sys().(*syscall.Stat_t).Ctim.Unix())
}
