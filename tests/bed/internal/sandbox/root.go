package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Directories of the host that a container sees, read-only. The entries of /etc are mounted one by
// one, so that /etc has room for further mount points.
var (
	systemDirectories = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/sys"}
	systemEntries     = []string{"/etc"}
	devices           = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}
)

// A tree is a detached mount, to be moved from the host's root to the container's.
type tree struct {
	fd     int
	target string
	file   bool
}

// enterRoot replaces the host's root by a new one. It opens the sources before and attaches them
// after that, so that the kernel resolves targets and their symbolic links inside the container.
func enterRoot(c Container) error {
	unix.Umask(0)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	trees, links, err := systemTrees()
	if err != nil {
		return err
	}
	for _, m := range c.Mounts {
		t, err := m.open()
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
		trees = append(trees, t)
	}
	if err := pivot(c.Root); err != nil {
		return err
	}
	if err := furnish(links); err != nil {
		return err
	}
	for _, t := range trees {
		if err := t.place(); err != nil {
			return fmt.Errorf("mount %s: %w", t.target, err)
		}
	}
	if !c.ReadOnlyRoot {
		return nil
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("make root read-only: %w", err)
	}
	return nil
}

// pivot mounts a new, empty root with a /proc, and detaches the old one.
func pivot(root string) error {
	if err := unix.Mount("tmpfs", root, "tmpfs", unix.MS_NOSUID, "mode=755"); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	// /proc comes first: in a user namespace the kernel allows a new one only while an old one is
	// visible. Some machines never allow a new one, so the host's is used there.
	proc := filepath.Join(root, "proc")
	if err := os.Mkdir(proc, 0o555); err != nil {
		return err
	}
	if err := unix.Mount("proc", proc, "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		if err := unix.Mount("/proc", proc, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount /proc: %w", err)
		}
	}
	if err := unix.Chdir(root); err != nil {
		return err
	}
	// pivot_root(2), NOTES: old and new root may be the same directory, with the old one on top.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the old root: %w", err)
	}
	return unix.Chdir("/")
}

// furnish creates the directories and links of a root.
func furnish(links map[string]string) error {
	var errs []error
	for directory, mode := range map[string]fs.FileMode{
		"/dev": 0o755, "/etc": 0o755, "/run": 0o755, "/root": 0o700, "/tmp": 0o777, "/var": 0o755,
		"/var/cache": 0o755, "/var/lib": 0o755, "/var/log": 0o755, "/var/tmp": 0o777, "/dev/shm": 0o777,
	} {
		errs = append(errs, os.MkdirAll(directory, 0o755), os.Chmod(directory, mode))
		if mode == 0o777 {
			errs = append(errs, os.Chmod(directory, mode|fs.ModeSticky))
		}
	}
	for path, destination := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1",
		"/dev/stderr": "/proc/self/fd/2", "/var/run": "/run",
	} {
		links[path] = destination
	}
	for path, destination := range links {
		errs = append(errs, os.Symlink(destination, path))
	}
	errs = append(errs, unix.Mount("tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=1777"))
	return errors.Join(errs...)
}

// systemTrees opens the host's files that every container sees, and lists the symbolic links among
// them.
func systemTrees() (trees []tree, links map[string]string, err error) {
	links = map[string]string{}
	paths := append(append([]string(nil), systemDirectories...), devices...)
	for _, directory := range systemEntries {
		entries, err := os.ReadDir(directory)
		if err != nil {
			return nil, nil, err
		}
		for _, entry := range entries {
			paths = append(paths, filepath.Join(directory, entry.Name()))
		}
	}
	for _, path := range paths {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // not every host has all of them
		}
		if err != nil {
			return nil, nil, err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			if links[path], err = os.Readlink(path); err != nil {
				return nil, nil, err
			}
			continue
		}
		device := info.Mode()&fs.ModeDevice != 0
		t, err := openTree(path, path, !device)
		if err != nil {
			return nil, nil, fmt.Errorf("%s of the host: %w", path, err)
		}
		trees = append(trees, t)
	}
	return trees, links, nil
}
