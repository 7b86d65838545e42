package janitor

import (
	"context"
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

// visitSlot removes an entry of a workload's directory if it is an old slot that no pod holds.
func (r *round) visitSlot(ctx context.Context, workload *os.Root, name, at string) {
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
		r.skipUnknown(at)
	case leftover: // of an interrupted round
		if !r.DryRun {
			r.discard(ctx, workload, name, at)
		}
	default:
		r.removeOld(ctx, workload, name, at)
	}
}

func (r *round) removeOld(ctx context.Context, workload *os.Root, name, at string) {
	keep := func(count *int, use usage, fixed bool) {
		*count++
		r.Kept += use.bytes
		if fixed {
			r.fixed++
			r.fixedBytes += use.bytes
		} else {
			r.used = append(r.used, use)
		}
	}
	use, err := measure(ctx, workload, name)
	if err != nil {
		r.fail(at, err)
		return
	}
	if !use.last.Before(r.before) || r.spared {
		keep(&r.Young, use, r.spared)
		return
	}
	lock, err := slot.Lock(workload, name)
	switch {
	case errors.Is(err, slot.ErrHeld):
		keep(&r.Held, use, true)
		return
	case errors.Is(err, fs.ErrNotExist):
		// A pod died between creating and locking the slot. Without the lock, remove it only
		// if it is empty.
		r.removeEmpty(workload, name, at)
		return
	case err != nil:
		r.fail(at, err)
		return
	}
	defer lock.Close()
	// Measure again: a pod may have used the slot since.
	if use, err = measure(ctx, workload, name); err != nil {
		r.fail(at, err)
		return
	}
	if !use.last.Before(r.before) || r.spared {
		keep(&r.Young, use, r.spared)
		return
	}
	if !r.DryRun && !r.remove(ctx, workload, name, at) {
		return
	}
	r.Removed++
	r.Freed += use.bytes
	r.Logger.Info("removed", zap.Bool("dryRun", r.DryRun), zap.String("slot", at),
		zap.Time("lastUse", use.last), zap.Int64("bytes", use.bytes))
}

// remove renames the slot, so that it disappears in one step, and then deletes its files. When the
// context ends in between, the next round deletes the rest.
func (r *round) remove(ctx context.Context, workload *os.Root, name, at string) bool {
	gone := name + removedSuffix
	if !r.discard(ctx, workload, gone, at) { // leftover of an interrupted round
		return false
	}
	if err := workload.Rename(name, gone); err != nil {
		r.fail(at, err)
		return false
	}
	return r.discard(ctx, workload, gone, at)
}

func (r *round) discard(ctx context.Context, workload *os.Root, name, at string) bool {
	err := eachName(ctx, workload, name, func(file string) error { return workload.RemoveAll(path.Join(name, file)) })
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = workload.RemoveAll(name)
	}
	if err != nil {
		r.fail(at, err)
		return false
	}
	return true
}

// usage is the age and size of a slot.
type usage struct {
	last  time.Time // the newest modification time of the slot and its files
	bytes int64     // on the disk
}

// measure returns the usage of a slot, which contains only files. It ignores files that are
// removed meanwhile. It also ignores access times: many nodes do not record them, and backups
// change them.
func measure(ctx context.Context, workload *os.Root, name string) (usage, error) {
	var use usage
	add := func(file string) error {
		info, err := workload.Lstat(path.Join(name, file))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if info.ModTime().After(use.last) {
			use.last = info.ModTime()
		}
		use.bytes += info.Sys().(*syscall.Stat_t).Blocks * 512
		return nil
	}
	if err := errors.Join(eachName(ctx, workload, name, add), add(".")); err != nil {
		return usage{}, err
	}
	return use, nil
}

func changeTime(info fs.FileInfo) time.Time {
	return time.Unix(info.Sys().(*syscall.Stat_t).Ctim.Unix())
}
