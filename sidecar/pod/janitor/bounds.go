package janitor

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// DefaultMaxSlots is far more than the pods of a node (110 by default).
	DefaultMaxSlots = 1000
	// diskShare is the part of the file system that caches may take by default: one in four.
	diskShare = 4
)

// DefaultMaxBytes returns a quarter of the file system that has the directory.
func DefaultMaxBytes(directory string) (int64, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(directory, &stat); err != nil {
		return 0, fmt.Errorf("cache volume: size of its disk: %w", err)
	}
	return int64(stat.Blocks * uint64(stat.Bsize) / diskShare), nil
}

// minAge is the least age of what MaxSlots and MaxBytes remove, and the least time since package
// prepare has made its directory ready: a pod that starts has that for some seconds before it holds a
// slot in it.
const minAge = time.Hour

// bound returns the time before which a slot must have been used last so that the others stay within
// MaxSlots and MaxBytes, and whether there are more. What must stay counts, but does not make room.
func (r *round) bound() (time.Time, bool) {
	slots, bytes := r.fixed+len(r.used), r.fixedBytes
	for _, use := range r.used {
		bytes += use.bytes
	}
	slices.SortFunc(r.used, func(a, b usage) int { return a.last.Compare(b.last) })
	surplus := 0
	for _, use := range r.used {
		if (r.MaxSlots == 0 || slots-surplus <= r.MaxSlots) && (r.MaxBytes == 0 || bytes <= r.MaxBytes) {
			break
		}
		surplus++
		bytes -= use.bytes
	}
	if surplus == 0 {
		return time.Time{}, false
	}
	before := r.used[surplus-1].last.Add(1) // that one, too
	if before.After(r.latest) {
		before = r.latest
	}
	return before, before.After(r.before)
}
