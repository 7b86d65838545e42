package janitor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// awake is an uptime that does not keep Tidy from its work.
const awake = 2 * tidyInterval

// tidy scans on behalf of a pod of the workload mine.
func (v *volume) tidy(o Options, uptime time.Duration) Round {
	v.t.Helper()
	if !overridesAccess() {
		v.t.Skip("needs CAP_DAC_OVERRIDE")
	}
	o.Root, o.Clock, o.Spare = v.root, v.clock, "shop/default/deployment.mine"
	round, err := Tidy(v.t.Context(), o, uptime)
	if err != nil {
		v.t.Fatal(err)
	}
	return round
}

func (v *volume) litter(n int) {
	v.t.Helper()
	for i := range n {
		v.slot(fmt.Sprintf("ci/default/pod.run%d/0", i))
	}
}

func TestAPodThatStartsRemovesTheLitterOfEndedRuns(t *testing.T) {
	v := newVolume(t)
	v.slot("shop/default/deployment.mine/0")
	v.litter(12)
	v.hold("ci/default/pod.run3")
	if round := v.tidy(Options{MaxSlots: 5}, awake); round.Removed == 0 {
		t.Errorf("%+v", round)
	}
	left, err := filepath.Glob(v.path("ci/default/*/0"))
	if err != nil || len(left) > 6 { // and one that is held, which may be among the oldest
		t.Errorf("left are %q, %v", left, err)
	}
	for _, kept := range []string{"shop/default/deployment.mine/0/rockpool.db", "ci/default/pod.run3/0/rockpool.db"} {
		if _, err := os.Stat(v.path(kept)); err != nil {
			t.Error(err)
		}
	}
}

func TestPodsThatStartScanTheVolumeOnceAnHour(t *testing.T) {
	v := newVolume(t)
	scans := func(want bool) {
		t.Helper()
		v.litter(1)
		if got := v.tidy(Options{MaxSlots: 1, MaxBytes: 1}, awake).Removed > 0; got != want {
			t.Errorf("scanned: %v, want %v", got, want)
		}
		if err := os.RemoveAll(v.path("ci")); err != nil {
			t.Fatal(err)
		}
	}
	scans(true)
	scans(false)
	v.clock.Step(tidyInterval - time.Minute)
	scans(false)
	v.clock.Step(2 * time.Minute)
	scans(true)
	v.clock.Step(-3 * tidyInterval) // a clock that was corrected
	scans(true)

	// The janitor of the node takes the file for its own.
	if round, err := v.janitor(Options{}).Once(t.Context()); err != nil || round.Unknown != 0 {
		t.Errorf("%+v, %v", round, err)
	}
}

func TestNothingIsRemovedSoonAfterTheNodeHasBooted(t *testing.T) {
	v := newVolume(t)
	v.litter(3)
	if round := v.tidy(Options{MaxSlots: 1}, tidyInterval-time.Second); round != (Round{}) {
		t.Errorf("%+v", round)
	}
	if round := v.tidy(Options{MaxSlots: 1}, tidyInterval); round.Removed != 2 {
		t.Errorf("%+v", round)
	}
}

func TestInThePrepareContainer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be root with fewer capabilities")
	}
	for capabilities, want := range map[string]int{
		"CHOWN":              3, // of an older injector
		"CHOWN,DAC_OVERRIDE": 1,
	} {
		t.Run(capabilities, func(t *testing.T) {
			v := newVolume(t)
			v.litter(3)
			for i := range 3 {
				for _, path := range []string{"", "/0", "/0/lock", "/0/rockpool.db", "/0/rockpool.db-wal"} {
					if err := os.Chown(v.path(fmt.Sprintf("ci/default/pod.run%d%s", i, path)), sidecarID, sidecarID); err != nil {
						t.Fatal(err)
					}
				}
			}
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", "JANITOR_TEST_ROOT="+v.root, "JANITOR_TEST_TIDY="+capabilities)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if left, err := filepath.Glob(v.path("ci/default/*/0/rockpool.db")); err != nil || len(left) != want {
				t.Errorf("left are %q, %v; want %d", left, err, want)
			}
		})
	}
}

func TestAPodDoesNotWaitForThoseWhoLockTheVolume(t *testing.T) {
	v := newVolume(t)
	v.litter(3)
	volume, err := os.Open(v.root)
	if err != nil {
		t.Fatal(err)
	}
	defer volume.Close()
	if err := unix.Flock(int(volume.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := Tidy(context.WithoutCancel(t.Context()), Options{Root: v.root, MaxSlots: 1, Clock: v.clock}, awake)
		done <- err
	}()
	var waited time.Duration
	for len(done) == 0 {
		if v.clock.HasWaiters() {
			v.clock.Step(tidyPatience)
			waited += tidyPatience
		}
		runtime.Gosched()
	}
	if err := <-done; err == nil && overridesAccess() {
		t.Error("no error although another process held the lock")
	}
	if waited > 10*tidyPatience {
		t.Errorf("waited %s", waited)
	}
	if left, err := filepath.Glob(v.path("ci/default/*/0/rockpool.db")); err != nil || len(left) != 3 {
		t.Errorf("left are %q, %v", left, err)
	}
}

func TestSomethingElseInPlaceOfTheStampBlocksNobody(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"a pipe":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a link":      func(path string) error { return os.Symlink("/etc/hostname", path) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			v := newVolume(t)
			v.litter(3)
			if err := make(v.path(stampName)); err != nil {
				t.Fatal(err)
			}
			v.clock.Step(awake)
			if _, err := Tidy(t.Context(), Options{Root: v.root, MaxSlots: 1, Clock: v.clock}, awake); err == nil && overridesAccess() {
				t.Error("no error")
			}
		})
	}
}

func TestTheDefaultBoundIsAQuarterOfTheDisk(t *testing.T) {
	directory := t.TempDir()
	if err := unix.Mount("none", directory, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(directory, 0); err != nil {
			t.Error(err)
		}
	})
	if got, err := DefaultMaxBytes(directory); err != nil || got != 16<<20 {
		t.Errorf("%d, %v", got, err)
	}
}

// endsAfter is a context that ends when somebody has looked at it some times.
type endsAfter struct {
	context.Context
	looks int
}

func (c *endsAfter) Err() error {
	if c.looks--; c.looks < 0 {
		return context.DeadlineExceeded
	}
	return nil
}

// A program may have filled the directory of its slot with files. Neither to count them nor to
// remove them holds up a pod for longer than the time that a scan has.
func TestAScanEndsInTimeAmongManyFiles(t *testing.T) {
	const files = 2000
	for name, looks := range map[string]int{"while it counts": 500, "while it removes": 2*files + 500} {
		t.Run(name, func(t *testing.T) {
			v := newVolume(t)
			const slot = "shop/default/deployment.web/0"
			v.slot(slot)
			for i := range files {
				v.write(fmt.Sprintf("%s/file-%d", slot, i), 1)
			}
			old := v.clock.Now().Add(-2 * maxAge)
			for _, at := range v.paths() {
				if err := os.Chtimes(v.path(at), old, old); err != nil {
					t.Fatal(err)
				}
			}
			_, err := v.janitor(Options{}).Once(&endsAfter{t.Context(), looks})
			left := 0
			for _, at := range v.paths() {
				if strings.Contains(at, "file-") {
					left++
				}
			}
			if !errors.Is(err, context.DeadlineExceeded) || left == 0 {
				t.Errorf("%v, and %d files are left", err, left)
			}
			if _, err := v.janitor(Options{}).Once(t.Context()); err != nil || len(v.paths()) > 0 {
				t.Errorf("the next round: %v, and %d files are left", err, len(v.paths()))
			}
		})
	}
}
