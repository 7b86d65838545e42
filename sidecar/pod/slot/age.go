package slot

import (
	"cmp"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// The clocks of edge nodes jump, so the age of slots is counted in epochs, and the clock only
// decides within one. All pods of the workload that run on the node are in the same epoch. When one
// of them notices that another has ended, it begins the next epoch (Advance), and the others follow.
// So the slot of a pod that has ended stays in the epoch of its end, and counts as older than those
// that were used after it.

// ageName is the file in the slot that has its age.
const ageName = "age"

// age is what is known of the last use of a slot. Epoch and Pod are in the slot's file.
type age struct {
	// Epoch is 0 if the slot was never used, or only by a version that did not count.
	Epoch uint64 `json:"epoch"`
	// Pod is the UID of the pod that used the slot last; empty: unknown.
	Pod string `json:"pod,omitempty"`

	number  int
	strange bool      // has recordings that only another version can read; only Acquire finds that out
	held    bool      // by another pod; only Sources and Advance find that out
	changed time.Time // the newest modification time of the slot's files; zero: there are none
}

// preferred returns the numbers of all slots in the order in which a pod tries them: its own, the
// fresher before the older ones, then unused ones, and last those with the recordings of another
// version: a pod of that version may come back, after a rollback or in a canary. It does not matter
// which are held.
func preferred(existing []age, pod string) (numbers []int) {
	existing = slices.Clone(existing)
	slices.SortStableFunc(existing, func(a, b age) int {
		isOwn := func(x age) int {
			if pod != "" && x.Pod == pod {
				return 1
			}
			return 0
		}
		return cmp.Or(isOwn(b)-isOwn(a), a.compare(b))
	})
	var used, strange []int
	for _, a := range existing {
		if used = append(used, a.number); a.strange {
			strange = append(strange, a.number)
		} else {
			numbers = append(numbers, a.number)
		}
	}
	for n := range Max {
		if !slices.Contains(used, n) {
			numbers = append(numbers, n)
		}
	}
	return append(numbers, strange...)
}

// compare orders slots by age, the freshest first.
func (a age) compare(b age) int {
	return cmp.Or(cmp.Compare(b.Epoch, a.Epoch), b.changed.Compare(a.changed), a.number-b.number)
}

// sources returns the siblings from which to seed a slot, the best first. A slot without recordings
// can use any. Another one can use those that are in use and were used after it was left. But a pod
// that comes back keeps its slot, because its programs may have been told more than those of the
// other pods.
func sources(own age, pod string, empty bool, siblings []age) (numbers []int) {
	siblings = slices.Clone(siblings)
	slices.SortStableFunc(siblings, func(a, b age) int {
		switch {
		case a.held && !b.held:
			return -1
		case b.held && !a.held:
			return 1
		}
		return a.compare(b)
	})
	for _, s := range siblings {
		comesBack := pod != "" && own.Pod == pod
		if empty || !comesBack && s.held && s.Epoch > own.Epoch {
			numbers = append(numbers, s.number)
		}
	}
	return numbers
}

// nextEpoch returns the epoch of a slot in use: the latest there is, or the one after it if a pod
// has ended in that.
func nextEpoch(own uint64, siblings []age) uint64 {
	latest := max(own, 1)
	for _, s := range siblings {
		latest = max(latest, s.Epoch)
	}
	if slices.ContainsFunc(siblings, func(s age) bool { return !s.held && s.Epoch == latest }) {
		return latest + 1
	}
	return latest
}

// agesOf returns the ages of the slots that were used.
func agesOf(directory string) (all []age) {
	for n := range Max {
		if a := ageOf(filepath.Join(directory, strconv.Itoa(n))); !a.changed.IsZero() {
			all = append(all, a)
		}
	}
	return all
}

// ageOf returns the age of a slot, without held. An unreadable file counts as a missing one.
func ageOf(path string) (a age) {
	raw, err := os.ReadFile(filepath.Join(path, ageName))
	if err != nil || json.Unmarshal(raw, &a) != nil {
		a = age{}
	}
	a.number, _ = strconv.Atoi(filepath.Base(path))
	files, err := os.ReadDir(path)
	if err != nil {
		return a
	}
	for _, f := range files {
		if info, err := f.Info(); err == nil && info.ModTime().After(a.changed) {
			a.changed = info.ModTime()
		}
	}
	return a
}

// siblings returns the ages of the workload's other slots, with held. It tries their locks, but not
// those of slots that have not changed since they were found free: a pod that starts at this moment
// would pass them by.
func (s *Slot) siblings() (all []age, err error) {
	directory := filepath.Dir(s.Path)
	workload, err := os.OpenRoot(directory)
	if err != nil {
		return nil, err
	}
	defer workload.Close()
	for _, a := range agesOf(directory) {
		if a.number == s.before.number {
			continue
		}
		if s.left[a.number] != a {
			lock, err := Lock(workload, strconv.Itoa(a.number))
			if a.held = errors.Is(err, ErrHeld); err == nil {
				lock.Close()
			}
		}
		all = append(all, a)
	}
	return all, nil
}

// Sources returns the directories of other slots from which to seed this one, the best first. An
// empty slot has no recordings, so any are better. The recordings of another slot are replaced only
// by those of a pod that has used its slot since this one was left.
func (s *Slot) Sources(empty bool) (paths []string) {
	siblings, err := s.siblings()
	if err != nil {
		return nil
	}
	for _, n := range sources(s.before, s.pod, empty, siblings) {
		paths = append(paths, filepath.Join(filepath.Dir(s.Path), strconv.Itoa(n)))
	}
	return paths
}

// Advance notes that the slot is in use. Until the first call it is as old as it was when it was
// acquired, so that an interrupted seed is done again. Further calls, from time to time, make the
// slots that were left meanwhile older than this one. It is for one goroutine.
//
// Before that, Advance calls visit with the directories of the slots that no pod holds and that were
// left since the last call, or ever at the first call. Nobody else uses such a slot until visit
// returns. After an error of visit, the next call visits the slot again.
func (s *Slot) Advance(visit func(path string) error) error {
	siblings, err := s.siblings()
	if err != nil {
		return err
	}
	left := map[int]age{}
	for _, a := range siblings {
		if a.held {
			continue
		}
		if s.left[a.number] != a {
			if err := s.visit(strconv.Itoa(a.number), visit); err != nil {
				return err
			}
		}
		left[a.number] = a
	}
	s.left = left
	next := nextEpoch(max(s.epoch, s.before.Epoch), siblings)
	if next == s.epoch {
		return nil
	}
	if err := s.write(age{Epoch: next, Pod: s.pod}); err != nil {
		return err
	}
	s.epoch = next
	return nil
}

// visit calls f with the directory of a slot while it holds the slot's lock, unless the slot is
// held or was never used.
func (s *Slot) visit(name string, f func(path string) error) error {
	directory := filepath.Dir(s.Path)
	workload, err := os.OpenRoot(directory)
	if err != nil {
		return err
	}
	defer workload.Close()
	lock, err := Lock(workload, name)
	if err != nil {
		return nil //nolint:nilerr // it is not a slot that was left
	}
	defer lock.Close()
	return f(filepath.Join(directory, name))
}

// write replaces the slot's file in one step.
func (s *Slot) write(a age) error {
	raw, err := json.Marshal(a)
	if err != nil {
		return err
	}
	name := filepath.Join(s.Path, ageName)
	err = os.WriteFile(name+".new", raw, 0o600)
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	return err
}
