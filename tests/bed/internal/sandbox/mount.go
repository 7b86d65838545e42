package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// open returns a detached copy of the mount's source. It creates a missing SubPath first.
func (m Mount) open() (tree, error) {
	source := m.Source
	if m.SubPath != "" {
		if !filepath.IsLocal(m.SubPath) {
			return tree{}, fmt.Errorf("sub-path %q leads out of its volume", m.SubPath)
		}
		source = filepath.Join(m.Source, m.SubPath)
		if err := makeLike(m.Source, m.SubPath); err != nil {
			return tree{}, fmt.Errorf("sub-path %q: %w", m.SubPath, err)
		}
	}
	return openTree(source, m.Target, m.ReadOnly)
}

// makeLike creates the missing directories of subPath, with the mode and group of volume, whatever
// the umask is. The kubelet does the same (SafeMakeDir in pkg/volume/util/subpath).
func makeLike(volume, subPath string) error {
	if _, err := os.Stat(filepath.Join(volume, subPath)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	info, err := os.Stat(volume)
	if err != nil {
		return err
	}
	group := -1
	if status, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode()&fs.ModeSetgid != 0 {
		group = int(status.Gid)
	}
	path := volume
	for _, part := range strings.Split(filepath.Clean(subPath), "/") {
		path = filepath.Join(path, part)
		err := os.Mkdir(path, 0o700)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		if group >= 0 {
			if err := os.Chown(path, -1, group); err != nil {
				return err
			}
		}
		if err := os.Chmod(path, info.Mode()); err != nil {
			return err
		}
	}
	return nil
}

// openTree returns a detached copy of the mount at source (open_tree(2)).
func openTree(source, target string, readOnly bool) (tree, error) {
	info, err := os.Stat(source)
	if err != nil {
		return tree{}, err
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return tree{}, fmt.Errorf("open tree %s: %w", source, err)
	}
	if readOnly {
		attributes := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, attributes); err != nil {
			return tree{}, fmt.Errorf("make %s read-only: %w", source, err)
		}
	}
	return tree{fd: fd, target: target, file: !info.IsDir()}, nil
}

// place attaches the tree at its target. It creates a missing mount point.
func (t tree) place() error {
	defer unix.Close(t.fd)
	if _, err := os.Stat(t.target); errors.Is(err, fs.ErrNotExist) {
		if err := t.makePoint(); err != nil {
			return fmt.Errorf("mount point: %w", err)
		}
	}
	return unix.MoveMount(t.fd, "", unix.AT_FDCWD, t.target, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

func (t tree) makePoint() error {
	if !t.file {
		return os.MkdirAll(t.target, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(t.target), 0o755); err != nil {
		return err
	}
	return os.WriteFile(t.target, nil, 0o644)
}

// mountTmpfs mounts a memory volume for the whole pod.
func mountTmpfs(t Tmpfs) error {
	options := fmt.Sprintf("mode=%o", t.Mode&0o777)
	if t.Bytes > 0 {
		options += fmt.Sprintf(",size=%d", t.Bytes)
	}
	if err := unix.Mount("tmpfs", t.Path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return err
	}
	if t.Group == 0 {
		return nil
	}
	if err := unix.Chown(t.Path, -1, t.Group); err != nil {
		return err
	}
	return unix.Chmod(t.Path, t.Mode)
}
