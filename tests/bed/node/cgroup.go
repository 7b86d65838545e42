package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// groupVariable passes the name of the node's control group into its namespaces.
const groupVariable = "BED_NODE_CGROUP"

const cgroupRoot = "/sys/fs/cgroup"

// A controlGroup is the part of the machine's control groups that belongs to the node. The node
// does not use the root: two kubelets on one machine would kill each other's pods there.
type controlGroup struct {
	name        string // below the root of each hierarchy
	hierarchies []string
}

// makeControlGroup creates the group in every hierarchy.
func makeControlGroup() (controlGroup, error) {
	g := controlGroup{name: fmt.Sprintf("bed-node-%d", os.Getpid())}
	var err error
	if g.hierarchies, err = hierarchies(); err != nil {
		return g, err
	}
	for _, h := range g.hierarchies {
		if err := os.Mkdir(filepath.Join(h, g.name), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return g, errors.Join(err, g.remove())
		}
	}
	if err := g.complete(); err != nil {
		return g, errors.Join(err, g.remove())
	}
	return g, nil
}

// complete returns an error if a controller is missing that the kubelet needs. In version 2 a group
// has the controllers that its parent delegates. A parent that has processes, as in a container,
// cannot delegate any.
func (g controlGroup) complete() error {
	for _, controller := range []string{"cpu", "cpuset", "memory", "pids"} {
		if g.hierarchies[0] != cgroupRoot {
			if !slices.Contains(g.hierarchies, filepath.Join(cgroupRoot, controller)) {
				return fmt.Errorf("no controller %s at %s", controller, cgroupRoot)
			}
			continue
		}
		delegated, err := os.ReadFile(filepath.Join(cgroupRoot, g.name, "cgroup.controllers"))
		if err != nil {
			return err
		}
		if !slices.Contains(strings.Fields(string(delegated)), controller) {
			return fmt.Errorf("no controller %s below %s, only %s", controller, cgroupRoot, strings.TrimSpace(string(delegated)))
		}
	}
	return nil
}

// hierarchies are the mount points of the control groups: one of version 2, or several of version
// 1.
func hierarchies() ([]string, error) {
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		for _, controller := range []string{"+cpu", "+cpuset", "+memory", "+pids", "+hugetlb", "+io"} {
			// complete reports a missing one by name.
			_ = os.WriteFile(filepath.Join(cgroupRoot, "cgroup.subtree_control"), []byte(controller), 0)
		}
		return []string{cgroupRoot}, nil
	}
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		if e.IsDir() {
			found = append(found, filepath.Join(cgroupRoot, e.Name()))
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no control groups are mounted at %s", cgroupRoot)
	}
	return found, nil
}

// remove removes the group and all groups in it. Its processes have been killed with their
// namespace, but the kernel takes a moment to remove them from the group.
func (g controlGroup) remove() error {
	var err error
	for range 100 {
		if err = g.tryRemove(); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

func (g controlGroup) tryRemove() error {
	var errs []error
	for _, h := range g.hierarchies {
		var groups []string
		err := filepath.WalkDir(filepath.Join(h, g.name), func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				groups = append(groups, path)
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for i := len(groups) - 1; i >= 0; i-- {
			errs = append(errs, os.Remove(groups[i]))
		}
	}
	return errors.Join(errs...)
}
