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
	"strconv"

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

// errHeld is one slot held by another process.
var errHeld = errors.New("held by another pod")

// Acquire takes the first free slot of directory, which must exist. It does not
// wait. An error names the path; the caller goes on without recording.
func Acquire(directory string) (*Slot, error) {
	if info, err := os.Stat(directory); err != nil {
		return nil, fmt.Errorf("cache directory: %w", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("cache directory %s: not a directory", directory)
	}
	var unusable error
	for n := range Max {
		path := filepath.Join(directory, strconv.Itoa(n))
		made, err := makeDirectory(path)
		if err != nil && made {
			// Not even a new directory can be made here: nor can the next one.
			return nil, fmt.Errorf("make cache slot: %w", err)
		}
		var lock *os.File
		if err == nil {
			lock, err = take(path)
		}
		switch {
		case err == nil:
			return &Slot{Path: path, lock: lock}, nil
		case !errors.Is(err, errHeld) && unusable == nil:
			unusable = err // somebody's leftover; the next slot may do
		}
	}
	if unusable != nil {
		return nil, fmt.Errorf("cache directory %s: no slot of %d can be used, the first because: %w", directory, Max, unusable)
	}
	return nil, fmt.Errorf("cache directory %s: %w (%d)", directory, ErrBusy, Max)
}

// makeDirectory makes path unless it is there; fresh tells that it was not.
func makeDirectory(path string) (fresh bool, err error) {
	err = os.Mkdir(path, 0o700)
	if err == nil {
		return true, nil
	}
	info, statErr := os.Lstat(path)
	if statErr != nil {
		return true, err
	}
	if !info.IsDir() {
		return false, fmt.Errorf("%s: not a directory", path)
	}
	if info.Mode().Perm()&0o077 == 0 {
		return false, nil
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return false, fmt.Errorf("close to others: %w", err)
	}
	return false, nil
}

// take locks the slot's lock file, or fails with errHeld.
func take(path string) (*os.File, error) {
	name := filepath.Join(path, lockName)
	for range 3 {
		// O_NOFOLLOW: the lock of a link's target is not the slot's.
		file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			file.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("%s: %w", path, errHeld)
			}
			return nil, fmt.Errorf("flock %s: %w", name, err)
		}
		same, err := current(file, name)
		if same {
			return file, nil
		}
		file.Close()
		if err != nil {
			return nil, err
		}
		// Removed between open and lock; lock the file that is there now.
	}
	return nil, fmt.Errorf("%s: keeps being replaced", name)
}

// current tells whether the locked file is still the one under its name.
func current(file *os.File, name string) (bool, error) {
	locked, err := file.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return os.SameFile(locked, named), nil
}

// Close gives the slot up. The directory stays for the next pod.
func (s *Slot) Close() error {
	return s.lock.Close()
}
