// Package flock takes the lock of the node's cache volume, and waits for it only for a while: any
// user of the node who can open the volume's directory can also lock it, for as long as they like.
package flock

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/utils/clock"
)

// Patience is the default for how long to wait. Those of Rockpool hold the lock for milliseconds, a
// janitor that removes large slots for a few seconds.
const Patience = 10 * time.Second

// retryInterval is the time between two attempts. The kernel has no wait with an end.
const retryInterval = 20 * time.Millisecond

// ErrHeld means that another process has held the lock all the time.
var ErrHeld = errors.New("another process holds the lock of the cache volume")

// Take locks the file, in the mode unix.LOCK_SH or unix.LOCK_EX, and unlocks it when it is closed.
// It tries at once and then until patience is over.
func Take(file *os.File, mode int, patience time.Duration, c clock.Clock) error {
	end := c.Now().Add(patience)
	for {
		err := unix.Flock(int(file.Fd()), mode|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EWOULDBLOCK):
			return fmt.Errorf("lock the cache volume: %w", err)
		case !c.Now().Before(end):
			return fmt.Errorf("%w for %s; lsof %s on the node names it", ErrHeld, patience, file.Name())
		}
		<-c.After(retryInterval)
	}
}
