// Package slot picks the pod's directory in the cache of its workload: 0, 1, 2, ... So a replacement
// pod starts with the recordings of its predecessor, and two replicas on one node do not write the
// same database. A pod takes the slot that it had before, else the freshest one that no other pod
// holds.
//
// The package holds the lock and counts the age of the slots; see age.go. The other files in the
// directory belong to the store.
package slot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Max is the number of pods of one workload that can record on one node.
const Max = 64

// lockName is the file in the slot that carries the lock. It is empty and never removed:
// otherwise two pods could lock two files of the same name.
const lockName = "lock"

// Slot is a directory that only this process uses, until Close or the process's end: the
// kernel then drops the lock (flock(2)).
type Slot struct {
	// Path is the directory, mode 0700.
	Path string

	lock   *os.File
	pod    string
	before age         // of the slot when it was acquired
	epoch  uint64      // of the slot now; 0: Advance was not called
	left   map[int]age // the slots that the last Advance found free, by number
}

// ErrBusy means that other pods hold all slots.
var ErrBusy = errors.New("all slots are held by other pods")

// ErrHeld means that another process holds the slot.
var ErrHeld = errors.New("held by another pod")

// Is reports whether name can be the name of a slot.
func Is(name string) bool {
	n, err := strconv.Atoi(name)
	return err == nil && n >= 0 && n < Max && strconv.Itoa(n) == name
}

// Acquire takes the slot that the pod with this UID used last, else the freshest free one in
// directory, which must exist. An empty UID is unknown. Another pod's slot is taken only as a last
// resort if strange reports true for its path, because it has recordings that the caller cannot read;
// nil means that there are none. Acquire does not wait. An error names the path; the caller then runs
// without recording.
func Acquire(directory, pod string, strange func(path string) bool) (*Slot, error) {
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
	all := agesOf(directory)
	for i := range all {
		a := &all[i]
		// A pod's own recordings are replaced: a volume of its own has no room for two.
		another := pod != "" && a.Pod != "" && a.Pod != pod
		a.strange = another && strange != nil && strange(filepath.Join(directory, strconv.Itoa(a.number)))
	}
	for _, n := range preferred(all, pod) {
		s := &Slot{Path: filepath.Join(directory, strconv.Itoa(n)), pod: pod}
		s.lock, err = claim(workload, s.Path)
		switch {
		case err == nil:
			s.before = ageOf(s.Path)
			s.touch()
			return s, nil
		case errors.Is(err, errNoSlots):
			return nil, fmt.Errorf("make cache slot: %w", err)
		case !errors.Is(err, ErrHeld) && unusable == nil:
			unusable = fmt.Errorf("%s: %w", s.Path, err) // try the next slot
		}
	}
	if unusable != nil {
		return nil, fmt.Errorf("cache directory %s: none of %d slots is usable; the first error is: %w",
			directory, Max, unusable)
	}
	return nil, fmt.Errorf("cache directory %s: %w (%d)", directory, ErrBusy, Max)
}

// errNoSlots means that no other slot can be created either.
var errNoSlots = errors.New("cannot create a directory here")

// claim creates the slot if it is missing, and takes its lock.
func claim(workload *os.Root, path string) (lock *os.File, err error) {
	for range 3 {
		if err = makeDirectory(path); err == nil {
			lock, err = lockSlot(workload, filepath.Base(path), os.O_CREATE)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		// The janitor has just removed the slot.
	}
	return lock, err
}

// makeDirectory creates path if it is missing, and closes it to other users.
func makeDirectory(path string) error {
	err := os.Mkdir(path, 0o700)
	if err == nil {
		return nil
	}
	info, statErr := os.Lstat(path)
	switch {
	case statErr != nil && errors.Is(err, fs.ErrExist):
		return statErr // removed meanwhile
	case statErr != nil:
		return fmt.Errorf("%w: %w", errNoSlots, err)
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

// Lock takes the lock of an existing slot, without acquiring the slot. Until the caller
// closes the file, no pod can acquire the slot. The error is ErrHeld if a pod holds the slot,
// and fs.ErrNotExist if no pod has ever locked it.
func Lock(workload *os.Root, name string) (*os.File, error) {
	return lockSlot(workload, name, 0)
}

// lockSlot locks the slot's lock file, or fails with ErrHeld.
func lockSlot(workload *os.Root, slot string, flags int) (*os.File, error) {
	name := filepath.Join(slot, lockName)
	for range 3 {
		if info, err := workload.Lstat(name); err == nil && !info.Mode().IsRegular() {
			return nil, errors.New("the lock is not a file") // a link may name another lock
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
		same, err := isCurrent(file, workload, name)
		if same {
			return file, nil
		}
		file.Close()
		if err != nil {
			return nil, err
		}
		// The file was removed between open and lock: lock the present one.
	}
	return nil, errors.New("the lock keeps being replaced")
}

// isCurrent reports whether the locked file is still the one under its name.
func isCurrent(file *os.File, workload *os.Root, name string) (bool, error) {
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

// touch sets the lock's modification time, because a pod that only reads changes no other
// file. The janitor takes the newest modification time as the last use of the slot.
func (s *Slot) touch() {
	_ = os.Chtimes(filepath.Join(s.Path, lockName), time.Time{}, time.Now()) // also on a full disk
}

// Close releases the slot. The directory stays for the next pod.
func (s *Slot) Close() error {
	s.touch()
	return s.lock.Close()
}
