// Package slot picks the directory of this pod inside the cache of its
// workload: 0, 1, 2, ... the first that no other pod on the node holds. A
// replacement pod so starts with what its predecessor recorded, and two
// replicas on one node do not write the same database.
//
// It holds a lock; what lies in the directory is the store's.
package slot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Max is how many pods of one workload can record on one node.
const Max = 64

// lockName is the file in the slot that carries the lock. It stays there, empty:
// removing it would let two pods lock two files of the same name.
const lockName = "lock"

// Slot is a directory that is this process's alone until Close, or until the
// process ends in whatever way: the kernel drops the lock with it (flock(2)).
type Slot struct {
	// Path is the directory, mode 0700.
	Path string

	lock *os.File
}

// ErrBusy is in the error when all slots are held by others.
var ErrBusy = errors.New("all slots are held by other pods")

// ErrHeld is in the error when one slot is held by another process.
var ErrHeld = errors.New("held by another pod")

// Is tells whether name could be that of a slot.
func Is(name string) bool {
	n, err := strconv.Atoi(name)
	return err == nil && n >= 0 && n < Max && strconv.Itoa(n) == name
}

// Acquire takes the first free slot of directory, which must exist. It does not
// wait. An error names the path; the caller goes on without recording.
func Acquire(directory string) (*Slot, error) {
	if info, err := os.Stat(directory); err != nil {
		return nil, fmt.Errorf("cache directory: %w", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("cache directory %s: not a directory", directory)
	}
	workload, err := os.OpenRoot(directory)
	if err != nil {
		return nil, fmt.Errorf("cache directory: %w", err)
	}
	defer workload.Close()
	var unusable error
	for n := range Max {
		path := filepath.Join(directory, strconv.Itoa(n))
		lock, err := claim(workload, path)
		switch {
		case err == nil:
			s := &Slot{Path: path, lock: lock}
			s.mark()
			return s, nil
		case errors.Is(err, errHopeless):
			return nil, fmt.Errorf("make cache slot: %w", err)
		case !errors.Is(err, ErrHeld) && unusable == nil:
			unusable = fmt.Errorf("%s: %w", path, err) // somebody's leftover; the next slot may do
		}
	}
	if unusable != nil {
		return nil, fmt.Errorf("cache directory %s: no slot of %d can be used, the first because: %w", directory, Max, unusable)
	}
	return nil, fmt.Errorf("cache directory %s: %w (%d)", directory, ErrBusy, Max)
}

// errHopeless is in the error when no other slot can be made either.
var errHopeless = errors.New("no directory can be made here")

// claim makes the slot unless it is there, and takes its lock.
func claim(workload *os.Root, path string) (lock *os.File, err error) {
	for range 3 {
		if err = makeDirectory(path); err == nil {
			lock, err = take(workload, filepath.Base(path), os.O_CREATE)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		// The janitor has just removed it.
	}
	return lock, err
}

// makeDirectory makes path unless it is there.
func makeDirectory(path string) error {
	err := os.Mkdir(path, 0o700)
	if err == nil {
		return nil
	}
	info, statErr := os.Lstat(path)
	switch {
	case statErr != nil && errors.Is(err, fs.ErrExist):
		return statErr // it went away
	case statErr != nil:
		return fmt.Errorf("%w: %w", errHopeless, err)
	case !info.IsDir():
		return fmt.Errorf("%s: not a directory", path)
	case info.Mode().Perm()&0o077 == 0:
		return nil
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return fmt.Errorf("close to others: %w", err)
	}
	return nil
}

// Lock takes the lock of a slot that is there, without making it this process's own.
// The lock is held until the file is closed, and as long as it is held no pod takes
// the slot. An error is ErrHeld, or fs.ErrNotExist where no pod has ever been.
func Lock(workload *os.Root, name string) (*os.File, error) {
	return take(workload, name, 0)
}

// take locks the slot's lock file, or fails with ErrHeld.
func take(workload *os.Root, slot string, flags int) (*os.File, error) {
	name := filepath.Join(slot, lockName)
	for range 3 {
		if info, err := workload.Lstat(name); err == nil && !info.Mode().IsRegular() {
			return nil, errors.New("the lock is not a file") // the lock of a link's target is not the slot's
		}
		file, err := workload.OpenFile(name, os.O_RDWR|flags, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			file.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, ErrHeld
			}
			return nil, fmt.Errorf("flock: %w", err)
		}
		same, err := current(file, workload, name)
		if same {
			return file, nil
		}
		file.Close()
		if err != nil {
			return nil, err
		}
		// Removed between open and lock; lock the file that is there now.
	}
	return nil, errors.New("the lock keeps being replaced")
}

// current tells whether the locked file is still the one under its name.
func current(file *os.File, workload *os.Root, name string) (bool, error) {
	locked, err := file.Stat()
	if err != nil {
		return false, err
	}
	named, err := workload.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return os.SameFile(locked, named), nil
}

// mark notes in the lock's modification time that the slot is in use: a pod that only
// reads leaves no other trace, and the janitor goes by the newest one.
func (s *Slot) mark() {
	_ = os.Chtimes(filepath.Join(s.Path, lockName), time.Time{}, time.Now()) // a full disk has no say in this
}

// Siblings are the directories of the workload's other slots, the most recently changed first:
// whoever finds nothing in a new slot may look there.
func (s *Slot) Siblings() []string {
	type sibling struct {
		path    string
		changed time.Time
	}
	var all []sibling
	for n := range Max {
		path := filepath.Join(filepath.Dir(s.Path), strconv.Itoa(n))
		if path == s.Path {
			continue
		}
		files, err := os.ReadDir(path)
		if err != nil {
			continue
		}
		of := sibling{path: path}
		for _, f := range files {
			if info, err := f.Info(); err == nil && info.ModTime().After(of.changed) {
				of.changed = info.ModTime()
			}
		}
		all = append(all, of)
	}
	slices.SortStableFunc(all, func(a, b sibling) int { return b.changed.Compare(a.changed) })
	paths := make([]string, len(all))
	for i, of := range all {
		paths[i] = of.path
	}
	return paths
}

// Close gives the slot up. The directory stays for the next pod.
func (s *Slot) Close() error {
	s.mark()
	return s.lock.Close()
}
