// Package prepare makes the pod's directory in the node's cache volume before
// the sidecar starts. It runs as root in a container of its own that has no
// capability but CAP_CHOWN and sees the whole volume; the sidecar, which is not
// root, later sees only the directory made here.
//
// The volume is shared with pods of other namespaces whose sidecars run as the
// same user. So levels above the directory belong to root with mode 0700: the
// kubelet, which mounts the directory for the sidecar, is the only one that
// must pass through them. And nothing on the way is followed or trusted that is
// not a directory of root.
//
// Two things are for the janitor, which removes what is old: a lock on the volume,
// so that no level goes away while the next one is made in it, and the directory's
// change time, which says that a pod is about to use it.
package prepare

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLevels is far above the three that the injector asks for.
const maxLevels = 16

// Options say what to make and for whom.
type Options struct {
	Root      string // the volume's mount point; exists; left as it is
	Directory string // relative, such as namespace/serviceaccount/workload
	UID, GID  int    // owner of the last level, which gets mode 0700
}

// Directory makes Root/Directory, or finds that it is there and right. The
// caller must be able to give files away (CAP_CHOWN) unless UID and GID are its
// own. Errors name the path and what to do.
func Directory(o Options) error {
	levels, err := split(o.Directory)
	if err != nil {
		return err
	}
	if o.UID < 0 || o.GID < 0 {
		return fmt.Errorf("--uid=%d --gid=%d: must not be negative", o.UID, o.GID)
	}
	at := o.Root
	parent, err := open(unix.AT_FDCWD, o.Root, unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("cache volume %s: %w", o.Root, explain(err))
	}
	defer func() { unix.Close(parent) }()
	defer lock(o.Root)()

	for _, name := range levels[:len(levels)-1] {
		at = filepath.Join(at, name)
		next, err := passage(parent, name)
		if err != nil {
			return fmt.Errorf("%s: %w", at, explain(err))
		}
		unix.Close(parent)
		parent = next
	}
	at = filepath.Join(at, levels[len(levels)-1])
	if err := hand(parent, levels[len(levels)-1], o.UID, o.GID); err != nil {
		return fmt.Errorf("%s: %w", at, explain(err))
	}
	return nil
}

func split(directory string) ([]string, error) {
	refuse := func(why string) ([]string, error) {
		return nil, fmt.Errorf("--directory=%q: %s; a relative path such as namespace/serviceaccount/workload is allowed", directory, why)
	}
	if directory == "" {
		return refuse("is empty")
	}
	if strings.HasPrefix(directory, "/") {
		return refuse("is absolute")
	}
	levels := strings.Split(directory, "/")
	if len(levels) > maxLevels {
		return refuse(fmt.Sprintf("has more than %d levels", maxLevels))
	}
	for _, level := range levels {
		switch {
		case level == "":
			return refuse("has an empty level")
		case level == "." || level == "..":
			return refuse("has the level " + level)
		case len(level) > unix.NAME_MAX:
			return refuse(fmt.Sprintf("has a level of more than %d bytes", unix.NAME_MAX))
		case strings.ContainsFunc(level, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return refuse("has a control character")
		}
	}
	return levels, nil
}

// open gives a handle that only names the file (O_PATH): it works on
// directories that root without CAP_DAC_OVERRIDE may not read.
func open(parent int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(parent, name, unix.O_PATH|unix.O_CLOEXEC|flags, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// enter makes the directory if it is missing and opens it without following a
// link. Making it is not an error when another pod's prepare was faster.
func enter(parent int, name string) (int, unix.Stat_t, error) {
	var stat unix.Stat_t
	made := unix.Mkdirat(parent, name, 0o700)
	fd, err := open(parent, name, unix.O_NOFOLLOW)
	if err != nil {
		if made != nil && !errors.Is(made, unix.EEXIST) {
			err = made
		}
		return -1, stat, err
	}
	if err := unix.Fstat(fd, &stat); err != nil {
		unix.Close(fd)
		return -1, stat, err
	}
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return fd, stat, nil
	case unix.S_IFLNK:
		err = errors.New("is a symbolic link, which is not followed; remove it from the node")
	default:
		err = errors.New("is in the way: not a directory; remove it from the node")
	}
	unix.Close(fd)
	return -1, stat, err
}

// lock keeps the janitor from removing levels until the returned function is
// called. Where it cannot be had, as in a volume that root alone may not read, the
// worst is that a level goes away at the wrong moment and the kubelet starts this
// container again.
func lock(root string) (unlock func()) {
	volume, err := os.Open(root)
	if err != nil {
		return func() {}
	}
	for {
		if err := unix.Flock(int(volume.Fd()), unix.LOCK_SH); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return func() { volume.Close() }
}

// passage opens a level above the pod's directory.
func passage(parent int, name string) (int, error) {
	fd, stat, err := enter(parent, name)
	if err != nil {
		return -1, err
	}
	if self := os.Geteuid(); int(stat.Uid) != self {
		unix.Close(fd)
		return -1, fmt.Errorf("belongs to uid %d, must belong to uid %d because it holds other pods' directories; remove it or chown it on the node", stat.Uid, self)
	}
	if stat.Mode&0o777 == 0o700 {
		return fd, nil
	}
	if err := unix.Fchmodat(parent, name, 0o700, 0); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("make private: %w", err)
	}
	return fd, nil
}

// hand makes the pod's directory and gives it to uid:gid. The mode comes first:
// once the directory is another's, only CAP_FOWNER could change it.
func hand(parent int, name string, uid, gid int) error {
	fd, stat, err := enter(parent, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)

	owned := int(stat.Uid) == uid && int(stat.Gid) == gid
	private := stat.Mode&0o7777 == 0o700
	if owned && private {
		// Changes nothing but the change time. A volume that has become read-only will be
		// reported by those who write to it.
		_ = unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH)
		return nil
	}
	chown := func(uid, gid int) error {
		err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH)
		if err != nil {
			return fmt.Errorf("belongs to %d:%d, cannot be given to %d:%d (CAP_CHOWN is needed): %w", stat.Uid, stat.Gid, uid, gid, err)
		}
		return nil
	}
	if !private {
		// Taken back for the moment of the chmod. The parent is root's alone, so
		// nobody can put another file under the name meanwhile.
		self := os.Geteuid()
		if int(stat.Uid) != self {
			if err := chown(self, int(stat.Gid)); err != nil {
				return err
			}
			owned = false
		}
		if err := unix.Fchmodat(parent, name, 0o700, 0); err != nil {
			return fmt.Errorf("has mode %#o, cannot be made 0700: %w", stat.Mode&0o7777, err)
		}
	}
	if owned {
		return nil
	}
	return chown(uid, gid)
}

// explain adds what a person at the node can do about an error of the volume.
func explain(err error) error {
	for _, hint := range []struct {
		is   error
		text string
	}{
		{unix.EROFS, "the hostPath volume is read-only: mount it writable, or annotate the pod with rockpool.dev/cache-volume: emptyDir"},
		{unix.ENOSPC, "the node's disk is full (or out of inodes): free some, or annotate the pod with rockpool.dev/cache-volume: emptyDir"},
		{unix.EDQUOT, "the disk quota is used up: raise it, or annotate the pod with rockpool.dev/cache-volume: emptyDir"},
		{unix.EACCES, "the directory is closed to this container: it must belong to root on the node"},
		{unix.ENOENT, "the directory is missing: is the cache volume mounted there?"},
	} {
		if errors.Is(err, hint.is) {
			return fmt.Errorf("%w; %s", err, hint.text)
		}
	}
	return err
}
