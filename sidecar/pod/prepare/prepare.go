// Package prepare creates the pod's directory in the node's cache volume before the sidecar
// starts. It runs as root in a container of its own, which sees the whole volume. It needs only the
// capability CAP_CHOWN. The sidecar is not root, and later sees only this directory.
//
// Pods of other namespaces share the volume, and their sidecars run as the same user. So the
// levels above the directory belong to root with mode 0700: only the kubelet, which mounts
// the directory for the sidecar, must pass through them. On the path, prepare follows no link
// and trusts only directories of root.
//
// It does two things for the janitor, which removes old caches. It locks the volume, so that
// no level is removed while the next one is created in it. It updates the directory's change
// time, which says that a pod is about to use it.
package prepare

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/pod/flock"
)

// maxLevels is far above the three levels that the injector uses.
const maxLevels = 16

// Options configure Directory.
type Options struct {
	Root      string // the volume's mount point; it must exist, and stays as it is
	Directory string // relative, such as namespace/serviceaccount/workload
	UID, GID  int    // owner of the last level, which gets mode 0700

	Patience time.Duration // how long to wait for the volume's lock; 0 = flock.Patience
	Warn     func(error)   // is told of a lock that was not taken; nil = nobody
	Clock    clock.Clock   // nil = the system's
}

// Directory creates Root/Directory, or corrects the owner and mode of an existing one. The
// caller needs CAP_CHOWN unless UID and GID are its own. An error names the path, and a
// remedy if there is a usual one.
func Directory(o Options) error {
	o.Patience = cmp.Or(o.Patience, flock.Patience)
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
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
	defer o.lock()()

	for _, name := range levels[:len(levels)-1] {
		at = filepath.Join(at, name)
		next, err := openLevel(parent, name)
		if err != nil {
			return fmt.Errorf("%s: %w", at, explain(err))
		}
		unix.Close(parent)
		parent = next
	}
	at = filepath.Join(at, levels[len(levels)-1])
	if err := giveDirectory(parent, levels[len(levels)-1], o.UID, o.GID); err != nil {
		return fmt.Errorf("%s: %w", at, explain(err))
	}
	return nil
}

func split(directory string) ([]string, error) {
	invalid := func(why string) ([]string, error) {
		return nil, fmt.Errorf("--directory=%q: %s; a relative path such as namespace/serviceaccount/workload is allowed",
			directory, why)
	}
	if directory == "" {
		return invalid("is empty")
	}
	if strings.HasPrefix(directory, "/") {
		return invalid("is absolute")
	}
	levels := strings.Split(directory, "/")
	if len(levels) > maxLevels {
		return invalid(fmt.Sprintf("has more than %d levels", maxLevels))
	}
	for _, level := range levels {
		switch {
		case level == "":
			return invalid("has an empty level")
		case level == "." || level == "..":
			return invalid("has the level " + level)
		case len(level) > unix.NAME_MAX:
			return invalid(fmt.Sprintf("has a level of more than %d bytes", unix.NAME_MAX))
		case strings.ContainsFunc(level, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return invalid("has a control character")
		}
	}
	return levels, nil
}

// open returns a handle that only names the file (O_PATH). It works even on directories that
// root without CAP_DAC_OVERRIDE may not read.
func open(parent int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(parent, name, unix.O_PATH|unix.O_CLOEXEC|flags, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// enter creates the directory if it is missing, and opens it without following a link.
// Another pod's prepare may create it at the same time.
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

// lock keeps the janitor from removing levels until the caller calls unlock. Without the
// lock, as in a volume that this container may not read, or that another program has locked for
// longer than patience, a level may be removed too early. At worst the kubelet then restarts this
// container.
func (o *Options) lock() (unlock func()) {
	volume, err := os.Open(o.Root)
	if err != nil {
		return func() {}
	}
	if err := flock.Take(volume, unix.LOCK_SH, o.Patience, o.Clock); err != nil {
		o.Warn(fmt.Errorf("%w; going on without it", err))
	}
	return func() { volume.Close() }
}

// openLevel opens a level above the pod's directory, and creates it if it is missing.
func openLevel(parent int, name string) (int, error) {
	fd, stat, err := enter(parent, name)
	if err != nil {
		return -1, err
	}
	if self := os.Geteuid(); int(stat.Uid) != self {
		unix.Close(fd)
		return -1, fmt.Errorf("belongs to uid %d, must belong to uid %d because it holds other pods' directories; "+
			"remove it or chown it on the node", stat.Uid, self)
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

// giveDirectory creates the pod's directory and gives it to uid:gid. It sets the mode first:
// once the directory belongs to another user, only CAP_FOWNER could change the mode.
func giveDirectory(parent int, name string, uid, gid int) error {
	fd, stat, err := enter(parent, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)

	owned := int(stat.Uid) == uid && int(stat.Gid) == gid
	private := stat.Mode&0o7777 == 0o700
	if owned && private {
		// Only the change time changes. If the volume is read-only, the sidecar reports that
		// when it writes.
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
		// Take the directory back for the chmod. Only root can write to the parent, so no
		// program can put another file under the name meanwhile.
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

// explain adds a remedy to an error of the volume.
func explain(err error) error {
	const useEmptyDir = "annotate the pod with rockpool.dev/cache-volume: emptyDir"
	for _, hint := range []struct {
		is   error
		text string
	}{
		{unix.EROFS, "the hostPath volume is read-only: mount it writable, or " + useEmptyDir},
		{unix.ENOSPC, "the node's disk is full (or out of inodes): free some, or " + useEmptyDir},
		{unix.EDQUOT, "the disk quota is used up: raise it, or " + useEmptyDir},
		{unix.EACCES, closed(securityLabel())},
		{unix.ENOENT, "the directory is missing: is the cache volume mounted there?"},
	} {
		if errors.Is(err, hint.is) {
			return fmt.Errorf("%w; %s", err, hint.text)
		}
	}
	return err
}

// securityLabel returns the label that SELinux or AppArmor has given to this process, or "".
func securityLabel() string {
	label, err := os.ReadFile("/proc/self/attr/current")
	if err != nil {
		return ""
	}
	return strings.Trim(string(label), "\x00\n ")
}

// closed says why a directory may be closed to a process with this label, and the remedy.
func closed(label string) string {
	const owner = "the directory is closed to this container: it must belong to root on the node"
	switch {
	case strings.Count(label, ":") >= 3: // user:role:type:level
		return fmt.Sprintf("SELinux may deny it to %s: set selinux_type: spc_t in rockpool-cfg, or relabel the directory on the node: "+
			"chcon -R -t container_file_t -l s0 DIRECTORY; ausearch -m avc shows denials. Otherwise "+owner, label)
	case label != "" && label != "unconfined":
		return fmt.Sprintf("AppArmor may deny it by its profile %s; the node's kernel log shows denials. Otherwise "+owner, label)
	default:
		return owner
	}
}
