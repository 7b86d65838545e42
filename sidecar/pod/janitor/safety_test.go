package janitor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rockpool.dev/sidecar/pod/flock"
	"rockpool.dev/sidecar/pod/prepare"
	"rockpool.dev/sidecar/pod/slot"
)

func TestNoLinkIsFollowedOut(t *testing.T) {
	const dir = "shop/default/deployment.web"
	tests := map[string]func(v *volume, outside string){
		"as a namespace": func(v *volume, outside string) { os.Symlink(outside, v.path("shop")) },
		"as a service account": func(v *volume, outside string) {
			v.workload("shop/x/pod.y")
			os.Symlink(outside, v.path("shop/default"))
		},
		"as a workload": func(v *volume, outside string) {
			v.workload("shop/default/pod.y")
			os.Symlink(outside, v.path(dir))
		},
		"as a slot":         func(v *volume, outside string) { v.workload(dir); os.Symlink(outside, v.path(dir+"/0")) },
		"as a removed slot": func(v *volume, outside string) { v.workload(dir); os.Symlink(outside, v.path(dir+"/0.removed")) },
		"as a slot's lock": func(v *volume, outside string) {
			v.slot(dir + "/0")
			os.Remove(v.path(dir + "/0/lock"))
			os.Symlink(outside+"/lock", v.path(dir+"/0/lock"))
		},
		"as a slot's file": func(v *volume, outside string) { v.slot(dir + "/0"); os.Symlink(outside, v.path(dir+"/0/more")) },
		"as a link in itself": func(v *volume, _ string) {
			v.slot(dir + "/0")
			os.Symlink("0", v.path(dir+"/1"))
			os.Symlink(".", v.path(dir+"/0/more"))
		},
	}
	for name, setup := range tests {
		t.Run(name, func(t *testing.T) {
			other := newVolume(t)
			other.slot("shop/default/deployment.web/0")
			outside := other.path("shop/default/deployment.web/0")
			before := other.paths()
			v := newVolume(t)
			setup(v, outside)
			v.janitor(Options{}).Once(t.Context())
			if now := other.paths(); !slices.Equal(now, before) {
				t.Errorf("left outside: %q", now)
			}
		})
	}
}

// Opening a named pipe for reading would block until a writer opens it.
func TestANamedPipeDoesNotBlockTheJanitor(t *testing.T) {
	v := newVolume(t)
	v.slot("shop/default/deployment.web/0")
	os.Remove(v.path("shop/default/deployment.web/0/lock"))
	for _, path := range []string{"shop/default/deployment.web/0/lock", "shop/default/deployment.web/1", "shop/default/pod.x", "pipe"} {
		if err := unix.Mkfifo(v.path(path), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	got, err := v.janitor(Options{}).Once(t.Context())
	if err == nil || !strings.Contains(err.Error(), "shop/default/deployment.web/0: the lock is not a file") || got.Unreached != 1 || got.Unknown != 3 {
		t.Errorf("%+v, %v", got, err)
	}
}

// Pods start, acquire slots, write and end while rounds run: each slot must be complete as
// long as a pod holds it.
func TestPodsStartWhileSlotsAreRemoved(t *testing.T) {
	v := newVolume(t)
	j := v.janitor(Options{}) // by its clock, every slot is old
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	rounds := make(chan int, 1)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			if _, err := j.Once(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
		rounds <- n
	}()
	warm := 0
	step := func() { // for a round that waits for the lock
		if v.clock.HasWaiters() {
			v.clock.Step(20 * time.Millisecond)
		}
	}
	for i := range 500 {
		step()
		workload := "shop/default/deployment." + strconv.Itoa(i%3)
		err := prepare.Directory(prepare.Options{Root: v.root, Directory: workload, UID: os.Getuid(), GID: os.Getgid()})
		if err != nil {
			t.Fatalf("prepare %d: %v", i, err)
		}
		s, err := slot.Acquire(v.path(workload), "", nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue // even a directory that prepare has just created is old here
		}
		if err != nil {
			t.Fatalf("slot %d: %v", i, err)
		}
		file := filepath.Join(s.Path, "rockpool.db")
		if _, err := os.Stat(file); err == nil {
			warm++
			if _, err := os.Stat(file + "-wal"); err != nil {
				t.Errorf("half a slot: %v", err)
			}
		}
		for _, suffix := range []string{"-wal", ""} {
			if err := os.WriteFile(file+suffix, []byte("x"), 0o600); err != nil {
				t.Fatalf("write %d: %v", i, err)
			}
		}
		runtime.Gosched()
		if text, err := os.ReadFile(file); err != nil || string(text) != "x" {
			t.Fatalf("read %d: %q, %v", i, text, err)
		}
		s.Close()
	}
	stop()
	for len(rounds) == 0 {
		step()
		runtime.Gosched()
	}
	t.Logf("%d rounds, %d of 500 pods started warm", <-rounds, warm)
}

// A killed janitor leaves a slot half deleted.
func TestNoPodAcquiresAHalfDeletedSlot(t *testing.T) {
	const dir = "shop/default/deployment.web"
	v := newVolume(t)
	busy := filepath.Join(v.slot(dir+"/0"), "busy")
	if err := os.Mkdir(busy, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", busy, "tmpfs", 0, ""); err != nil {
		t.Skipf("only a mount point cannot be deleted by root: mount tmpfs: %v", err)
	}
	defer unix.Unmount(v.path(dir+"/0.removed/busy"), unix.MNT_DETACH)
	got, err := v.janitor(Options{}).Once(t.Context())
	if !errors.Is(err, unix.EBUSY) || got.Removed != 0 || got.Unreached != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	s, err := slot.Acquire(v.path(dir), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if entries, err := os.ReadDir(s.Path); filepath.Base(s.Path) != "0" || len(entries) != 1 {
		t.Errorf("%s has %v, %v; want the lock only", s.Path, entries, err)
	}
}

func TestARoundWaitsForTheLockOfTheVolume(t *testing.T) {
	v := newVolume(t)
	v.slot("shop/default/deployment.web/0")
	pod, err := os.Open(v.root)
	if err != nil {
		t.Fatal(err)
	}
	defer pod.Close()
	if err := unix.Flock(int(pod.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := v.janitor(Options{}).Once(context.Background())
		done <- err
	}()
	for !v.clock.HasWaiters() {
		if len(done) > 0 {
			t.Fatalf("did not wait: %v", <-done)
		}
		runtime.Gosched()
	}
	if _, err := os.Stat(v.path("shop/default/deployment.web/0/rockpool.db")); err != nil {
		t.Error(err)
	}
	pod.Close()
	v.stepUntil(done)
	if err := <-done; err != nil || len(v.paths()) != 0 {
		t.Errorf("%v, left %q", err, v.paths())
	}
}

func TestARoundDoesNotWaitForEverForTheLockOfTheVolume(t *testing.T) {
	v := newVolume(t)
	for _, workload := range []string{"a", "b", "c"} {
		v.slot("shop/default/deployment." + workload + "/0")
	}
	somebody, err := os.Open(v.root)
	if err != nil {
		t.Fatal(err)
	}
	defer somebody.Close()
	if err := unix.Flock(int(somebody.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	began := v.clock.Now()
	done := make(chan error, 1)
	var round Round
	go func() {
		var err error
		round, err = v.janitor(Options{Patience: time.Minute}).Once(context.Background())
		done <- err
	}()
	v.stepUntil(done)
	if err := <-done; !errors.Is(err, flock.ErrHeld) || round.Removed != 0 || round.Unreached != 5 { // workloads, service account, namespace
		t.Errorf("%v, %+v", err, round)
	}
	if took := v.clock.Since(began); took > 2*time.Minute {
		t.Errorf("the round took %s", took)
	}
}

// stepUntil moves the clock until there is a result.
func (v *volume) stepUntil(done <-chan error) {
	for len(done) == 0 {
		if v.clock.HasWaiters() {
			v.clock.Step(time.Second)
		}
		runtime.Gosched()
	}
}

// The capability in the manifests is enough to remove files of the sidecars' user.
func TestWithOnlyTheDacOverrideCapability(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be root with CAP_DAC_OVERRIDE alone")
	}
	v := newVolume(t)
	v.slot("shop/default/deployment.web/0")
	v.slot("shop/default/deployment.web/1")
	workload := v.path("shop/default/deployment.web")
	err := filepath.WalkDir(workload, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chown(path, sidecarID, sidecarID))
	})
	if err != nil {
		t.Fatal(err)
	}
	v.hold("shop/default/deployment.web")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", "JANITOR_TEST_ROOT="+v.root)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Removed:1 ") || !strings.Contains(string(out), "Held:1 ") {
		t.Fatalf("%v: %s", err, out)
	}
	if slots, err := os.ReadDir(workload); err != nil || len(slots) != 1 {
		t.Errorf("%v are left, %v", slots, err)
	}
}
