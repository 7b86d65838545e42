package janitor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/utils/clock"
)

const (
	// tidyInterval is the least time between two scans by pods that start.
	tidyInterval = time.Hour
	// tidyTimeout bounds how long a scan holds up a pod.
	tidyTimeout = 2 * time.Second
	// tidyPatience bounds the wait for the volume's lock, likewise.
	tidyPatience = 100 * time.Millisecond
	// stampName is the file in the volume whose modification time is that of the last such scan.
	stampName = ".tidied"
)

// Tidy keeps a volume within MaxSlots and MaxBytes on behalf of a pod that starts, so that runs that
// never come back cannot fill a node without a janitor. The pod's own directory is o.Spare. Tidy
// scans at most once in tidyInterval, over all pods, and ends after tidyTimeout.
//
// It goes by no age. And it does nothing in the time after the node has booted, when the pods that
// ran before do not hold their slots yet; uptime tells how long ago that is.
//
// Tidy needs CAP_DAC_OVERRIDE, and does nothing without: pods that an older injector has made lack it.
func Tidy(ctx context.Context, o Options, uptime time.Duration) (Round, error) {
	o.Clock = cmp.Or[clock.Clock](o.Clock, clock.RealClock{})
	o.MaxAge, o.Patience = 0, tidyPatience
	if uptime < tidyInterval || !overridesAccess() {
		return Round{}, nil
	}
	j, err := New(o)
	if err != nil {
		return Round{}, err
	}
	if due, err := j.due(); !due || err != nil {
		return Round{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, tidyTimeout)
	defer cancel()
	return j.Once(ctx)
}

// due reports whether it is time for a scan, and then says in the volume that there is one. Of pods
// that start at the same time, two may scan.
func (j *Janitor) due() (bool, error) {
	root, err := os.OpenRoot(j.Root)
	if err != nil {
		return false, fmt.Errorf("cache volume: %w", err)
	}
	defer root.Close()
	now := j.Clock.Now()
	info, err := root.Lstat(stampName)
	if err == nil {
		if since := now.Sub(info.ModTime()); since >= 0 && since < tidyInterval {
			return false, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("%s: %w", stampName, withoutPath(err))
	}
	// O_NONBLOCK: something else in its place, such as a pipe, must not block.
	stamp, err := root.OpenFile(stampName, os.O_WRONLY|os.O_CREATE|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return false, fmt.Errorf("%s: %w", stampName, withoutPath(err))
	}
	if err := errors.Join(stamp.Close(), root.Chtimes(stampName, now, now)); err != nil {
		return false, fmt.Errorf("%s: %w", stampName, withoutPath(err))
	}
	return true, nil
}

// overridesAccess reports whether this process may look into directories of other users.
func overridesAccess() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_DAC_OVERRIDE) != 0
}

// Uptime returns the time since the node has booted.
func Uptime() (time.Duration, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("uptime of the node: %w", err)
	}
	return time.Duration(info.Uptime) * time.Second, nil
}
