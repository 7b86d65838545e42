package janitor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"
	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/sidecar/prepare"
	"rockpool.dev/sidecar/slot"
)

const (
	maxAge    = 24 * time.Hour
	sidecarID = 65532 // the user whose the slots are
)

// TestMain lets the test binary be a pod that holds a slot until it is killed, and the
// janitor's container: root with nothing but CAP_DAC_OVERRIDE.
func TestMain(m *testing.M) {
	if workload := os.Getenv("JANITOR_TEST_HOLD"); workload != "" {
		s, err := slot.Acquire(workload)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(s.Path)
		os.Stdin.Read(make([]byte, 1)) // ends with the test at the latest
		os.Exit(0)
	}
	if root := os.Getenv("JANITOR_TEST_ROOT"); root != "" {
		if err := contained(root); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// volume is a cache volume on the disk. Its clock is so far ahead that what is made now
// is old; what is to be young gets a time of its own.
type volume struct {
	t     *testing.T
	root  string
	clock *clocktesting.FakeClock
}

func newVolume(t *testing.T) *volume {
	return &volume{t: t, root: t.TempDir(), clock: clocktesting.NewFakeClock(time.Now().Add(2 * maxAge))}
}

func (v *volume) path(p string) string { return filepath.Join(v.root, p) }

// workload makes the directory as the prepare container does.
func (v *volume) workload(directory string) string {
	v.t.Helper()
	if err := prepare.Directory(prepare.Options{Root: v.root, Directory: directory, UID: os.Getuid(), GID: os.Getgid()}); err != nil {
		v.t.Fatal(err)
	}
	return v.path(directory)
}

// slot makes a slot of 8 KiB that was used and left by a pod.
func (v *volume) slot(directory string) string {
	v.t.Helper()
	workload := v.workload(filepath.Dir(directory))
	path := filepath.Join(workload, filepath.Base(directory))
	if err := os.Mkdir(path, 0o700); err != nil {
		v.t.Fatal(err)
	}
	v.write(directory+"/lock", 0)
	v.write(directory+"/rockpool.db", 4096)
	v.write(directory+"/rockpool.db-wal", 4096)
	return path
}

func (v *volume) write(path string, size int) {
	v.t.Helper()
	if err := os.WriteFile(v.path(path), make([]byte, size), 0o600); err != nil {
		v.t.Fatal(err)
	}
}

// touch makes one file as if it had been written a short time ago.
func (v *volume) touch(path string) {
	v.t.Helper()
	if err := os.Chtimes(v.path(path), time.Time{}, v.clock.Now().Add(-maxAge/2)); err != nil {
		v.t.Fatal(err)
	}
}

// hold lets another process take a slot of the workload, until the test ends.
func (v *volume) hold(workload string) *exec.Cmd {
	v.t.Helper()
	pod := exec.Command("/proc/self/exe")
	pod.Env = append(os.Environ(), "JANITOR_TEST_HOLD="+v.path(workload))
	stdin, err := pod.StdinPipe()
	if err != nil {
		v.t.Fatal(err)
	}
	stdout, err := pod.StdoutPipe()
	if err != nil {
		v.t.Fatal(err)
	}
	if err := pod.Start(); err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() { stdin.Close(); pod.Process.Kill(); pod.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, v.root) {
		v.t.Fatalf("the pod says %q, %v", line, err)
	}
	return pod
}

func (v *volume) janitor(o Options) *Janitor {
	v.t.Helper()
	o.Root, o.MaxAge, o.Clock = v.root, maxAge, v.clock
	j, err := New(o)
	if err != nil {
		v.t.Fatal(err)
	}
	return j
}

// left lists all that is in the volume.
func (v *volume) left() []string {
	v.t.Helper()
	var paths []string
	err := filepath.WalkDir(v.root, func(path string, d fs.DirEntry, err error) error {
		if rest, _ := filepath.Rel(v.root, path); rest != "." {
			paths = append(paths, rest)
		}
		return err
	})
	if err != nil {
		v.t.Fatal(err)
	}
	return paths
}

func TestWhatARoundRemoves(t *testing.T) {
	const dir = "shop/default/deployment.web"
	type left []string
	slotFiles := func(path string) left {
		return left{path, path + "/lock", path + "/rockpool.db", path + "/rockpool.db-wal"}
	}
	above := left{"shop", "shop/default", dir}
	tests := map[string]struct {
		lay  func(v *volume)
		want Round
		left left
	}{
		"an empty volume": {lay: func(*volume) {}},
		"an old slot, and the directories that are empty without it": {
			lay:  func(v *volume) { v.slot(dir + "/0") },
			want: Round{Removed: 1, Emptied: 3},
		},
		"a slot whose database was written lately stays": {
			lay:  func(v *volume) { v.slot(dir + "/0"); v.touch(dir + "/0/rockpool.db") },
			want: Round{Young: 1}, left: append(above, slotFiles(dir+"/0")...),
		},
		"a slot whose WAL was written lately stays": {
			lay:  func(v *volume) { v.slot(dir + "/0"); v.touch(dir + "/0/rockpool.db-wal") },
			want: Round{Young: 1}, left: append(above, slotFiles(dir+"/0")...),
		},
		"a slot that a pod has only read, and left lately, stays": {
			lay:  func(v *volume) { v.slot(dir + "/0"); v.touch(dir + "/0/lock") },
			want: Round{Young: 1}, left: append(above, slotFiles(dir+"/0")...),
		},
		"a slot that was written in the future, by a wrong clock, stays": {
			lay: func(v *volume) {
				v.slot(dir + "/0")
				future := v.clock.Now().Add(10 * maxAge)
				os.Chtimes(v.path(dir+"/0/rockpool.db"), future, future)
			},
			want: Round{Young: 1}, left: append(above, slotFiles(dir+"/0")...),
		},
		"an old slot beside a young one": {
			lay:  func(v *volume) { v.slot(dir + "/0"); v.slot(dir + "/1"); v.touch(dir + "/0/rockpool.db") },
			want: Round{Removed: 1, Young: 1}, left: append(above, slotFiles(dir+"/0")...),
		},
		"an old slot that another process holds stays": {
			lay:  func(v *volume) { v.slot(dir + "/0"); v.hold(dir) },
			want: Round{Held: 1}, left: append(above, slotFiles(dir+"/0")...),
		},
		"an old slot whose holder was killed": {
			lay: func(v *volume) {
				v.slot(dir + "/0")
				pod := v.hold(dir)
				pod.Process.Kill()
				pod.Wait()
			},
			want: Round{Removed: 1, Emptied: 3},
		},
		"the other workloads of a namespace stay": {
			lay: func(v *volume) {
				v.slot("shop/default/deployment.web/0")
				v.slot("shop/default/daemonset.agent/0")
				v.slot("shop/cart/job.a/0")
				v.touch("shop/default/deployment.web/0/rockpool.db")
			},
			want: Round{Removed: 2, Young: 1, Emptied: 3}, left: append(above, slotFiles(dir+"/0")...),
		},
		"directories that never had a slot": {
			lay:  func(v *volume) { v.workload(dir) },
			want: Round{Emptied: 3},
		},
		"what a round that was interrupted has left": {
			lay: func(v *volume) {
				os.Rename(v.slot(dir+"/0"), v.path(dir+"/0.removed"))
				v.slot(dir + "/0")
			},
			want: Round{Removed: 1, Emptied: 3},
		},
		"what a round that was interrupted has left, beside a new slot": {
			lay: func(v *volume) {
				os.Rename(v.slot(dir+"/0"), v.path(dir+"/0.removed"))
				v.slot(dir + "/0")
				v.touch(dir + "/0/rockpool.db")
			},
			want: Round{Young: 1}, left: append(above, slotFiles(dir+"/0")...),
		},
		"an empty slot that no pod has locked": {
			lay:  func(v *volume) { v.workload(dir); os.Mkdir(v.path(dir+"/0"), 0o700) },
			want: Round{Emptied: 4},
		},
		"a slot that no pod has locked, with something in it, stays": {
			lay:  func(v *volume) { v.workload(dir); os.Mkdir(v.path(dir+"/0"), 0o700); v.write(dir+"/0/x", 0) },
			left: append(above, dir+"/0", dir+"/0/x"),
		},
		"what is not Rockpool's stays": {
			lay: func(v *volume) {
				v.write("file", 1)
				os.Mkdir(v.path("lost+found"), 0o700)
				os.Mkdir(v.path("open"), 0o755)
				v.workload("ns/sa/nokind")
				v.workload(dir)
				v.write(dir+"/notes", 1)
				os.Mkdir(v.path(dir+"/64"), 0o700)
				os.Mkdir(v.path(dir+"/backup"), 0o700)
			},
			want: Round{Unknown: 7},
			left: left{"file", "lost+found", "ns", "ns/sa", "ns/sa/nokind", "open", "shop", "shop/default", dir, dir + "/64", dir + "/backup", dir + "/notes"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := newVolume(t)
			test.lay(v)
			before := v.left()

			dry, err := v.janitor(Options{DryRun: true}).Once(t.Context())
			if err != nil {
				t.Error(err)
			}
			if now := v.left(); !slices.Equal(now, before) {
				t.Errorf("a dry run has changed %q to %q", before, now)
			}
			got, err := v.janitor(Options{}).Once(t.Context())
			if err != nil {
				t.Error(err)
			}
			if dry.Removed != got.Removed || dry.Freed != got.Freed || dry.Young != got.Young || dry.Held != got.Held || dry.Kept != got.Kept {
				t.Errorf("the dry run told %+v, the round %+v", dry, got)
			}
			if got.Freed < 8192*int64(got.Removed) || (got.Removed == 0) != (got.Freed == 0) {
				t.Errorf("freed %d bytes", got.Freed)
			}
			if stay := int64(got.Young + got.Held); got.Kept < 8192*stay || (stay == 0) != (got.Kept == 0) {
				t.Errorf("kept %d bytes", got.Kept)
			}
			got.Freed, got.Kept = 0, 0
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			slices.Sort(test.left)
			now := v.left()
			slices.Sort(now)
			if !slices.Equal(now, test.left) {
				t.Errorf("left: %q\nwant: %q", now, test.left)
			}
		})
	}
}

// The time between the prepare container and the sidecar can be long: images are pulled.
func TestADirectoryThatAPodIsAboutToUseStays(t *testing.T) {
	v := newVolume(t)
	v.clock.SetTime(time.Now().Add(maxAge / 2))
	v.workload("shop/default/deployment.web")
	if got, err := v.janitor(Options{}).Once(t.Context()); err != nil || got != (Round{}) {
		t.Errorf("%+v, %v", got, err)
	}
	s, err := slot.Acquire(v.path("shop/default/deployment.web"))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	v.clock.SetTime(time.Now().Add(2 * maxAge))
	if got, err := v.janitor(Options{}).Once(t.Context()); err != nil || got.Removed != 1 || got.Emptied != 3 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestNoLinkLeadsOut(t *testing.T) {
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
	for name, lay := range tests {
		t.Run(name, func(t *testing.T) {
			other := newVolume(t)
			other.slot("shop/default/deployment.web/0")
			outside := other.path("shop/default/deployment.web/0")
			before := other.left()
			v := newVolume(t)
			lay(v, outside)
			v.janitor(Options{}).Once(t.Context())
			if now := other.left(); !slices.Equal(now, before) {
				t.Errorf("outside is left: %q", now)
			}
		})
	}
}

// A named pipe opened for reading would wait for a writer for ever.
func TestANamedPipeHoldsNothingUp(t *testing.T) {
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

// Pods start, take slots, write and end while rounds go on: each must find its slot whole
// for as long as it has it.
func TestPodsStartWhileSlotsAreRemoved(t *testing.T) {
	v := newVolume(t)
	j := v.janitor(Options{}) // to which everything is old
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	rounds := make(chan int)
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
	for i := range 500 {
		workload := "shop/default/deployment." + strconv.Itoa(i%3)
		err := prepare.Directory(prepare.Options{Root: v.root, Directory: workload, UID: os.Getuid(), GID: os.Getgid()})
		if err != nil {
			t.Fatalf("prepare %d: %v", i, err)
		}
		s, err := slot.Acquire(v.path(workload))
		if errors.Is(err, fs.ErrNotExist) {
			continue // all is old here, also what prepare has just made
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
	t.Logf("%d rounds, %d of 500 pods started warm", <-rounds, warm)
}

// As when the janitor is killed half way.
func TestASlotThatIsHalfDeletedIsNoSlot(t *testing.T) {
	const dir = "shop/default/deployment.web"
	v := newVolume(t)
	busy := filepath.Join(v.slot(dir+"/0"), "busy")
	if err := os.Mkdir(busy, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", busy, "tmpfs", 0, ""); err != nil {
		t.Skipf("nothing else cannot be deleted by root: mount tmpfs: %v", err)
	}
	defer unix.Unmount(v.path(dir+"/0.removed/busy"), unix.MNT_DETACH)
	got, err := v.janitor(Options{}).Once(t.Context())
	if !errors.Is(err, unix.EBUSY) || got.Removed != 0 || got.Unreached != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	s, err := slot.Acquire(v.path(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if entries, err := os.ReadDir(s.Path); filepath.Base(s.Path) != "0" || len(entries) != 1 {
		t.Errorf("%s has %v, %v; want the lock only", s.Path, entries, err)
	}
}

func TestTheVolumesLockIsWaitedFor(t *testing.T) {
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
	info, _ := pod.Stat()
	waits := fmt.Sprintf(":%d ", info.Sys().(*syscall.Stat_t).Ino)
	for seen := false; !seen; runtime.Gosched() {
		locks, err := os.ReadFile("/proc/locks")
		if err != nil {
			t.Skip(err)
		}
		for line := range strings.Lines(string(locks)) {
			seen = seen || strings.Contains(line, "-> FLOCK") && strings.Contains(line, waits)
		}
		if len(done) > 0 {
			t.Fatalf("did not wait: %v", <-done)
		}
	}
	if _, err := os.Stat(v.path("shop/default/deployment.web/0/rockpool.db")); err != nil {
		t.Error(err)
	}
	pod.Close()
	if err := <-done; err != nil || len(v.left()) != 0 {
		t.Errorf("%v, left %q", err, v.left())
	}
}

func contained(root string) error {
	if os.Getenv("JANITOR_TEST_DROPPED") == "" {
		// The bounding set is what survives an exec by root.
		runtime.LockOSThread()
		for c := range uintptr(unix.CAP_LAST_CAP + 1) {
			if c == unix.CAP_DAC_OVERRIDE {
				continue
			}
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && err != unix.EINVAL {
				return fmt.Errorf("drop capability %d: %w", c, err)
			}
		}
		return syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), "JANITOR_TEST_DROPPED=1"))
	}
	j, err := New(Options{Root: root, MaxAge: maxAge, Clock: clocktesting.NewFakeClock(time.Now().Add(2 * maxAge))})
	if err != nil {
		return err
	}
	r, err := j.Once(context.Background())
	fmt.Printf("%+v\n", r)
	return err
}

// What the manifests give the janitor is enough for what belongs to the sidecars' user.
func TestWithDacOverrideAlone(t *testing.T) {
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
	if _, err := os.Stat(v.path("shop/default/deployment.web/1")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("slot 1: %v", err)
	}
}

func TestARoundGoesOnBehindWhatFails(t *testing.T) {
	v := newVolume(t)
	v.slot("a/sa/pod.x/0")
	os.Remove(v.path("a/sa/pod.x/0/lock"))
	os.Mkdir(v.path("a/sa/pod.x/0/lock"), 0o700)
	v.slot("b/sa/pod.x/0")
	registry := prometheus.NewRegistry()
	got, err := v.janitor(Options{Registerer: registry}).Once(t.Context())
	if err == nil || !strings.Contains(err.Error(), "a/sa/pod.x/0: the lock is not a file") {
		t.Errorf("got %v", err)
	}
	if got.Unreached != 1 || got.Removed != 1 {
		t.Errorf("%+v", got)
	}
	want := `
# HELP rockpool_janitor_removed_slots_total Caches of pods that were removed.
# TYPE rockpool_janitor_removed_slots_total counter
rockpool_janitor_removed_slots_total 1
# HELP rockpool_janitor_rounds_total Looks at the whole cache volume, by whether something in it could not be read or removed.
# TYPE rockpool_janitor_rounds_total counter
rockpool_janitor_rounds_total{result="failed"} 1
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "rockpool_janitor_removed_slots_total", "rockpool_janitor_rounds_total"); err != nil {
		t.Error(err)
	}

	os.RemoveAll(v.root)
	if _, err := v.janitor(Options{}).Once(t.Context()); err == nil || !strings.Contains(err.Error(), "cache volume") {
		t.Errorf("a volume that is not there: %v", err)
	}
}

func TestRunLooksAgainEveryInterval(t *testing.T) {
	v := newVolume(t)
	j := v.janitor(Options{})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { j.Run(ctx, time.Hour); close(done) }()
	waiting := func() {
		t.Helper()
		for !v.clock.HasWaiters() {
			if t.Context().Err() != nil {
				t.Fatal("does not wait for the next round")
			}
			runtime.Gosched()
		}
	}
	waiting()
	for range 2 {
		v.slot("shop/default/deployment.web/0")
		v.clock.Step(time.Hour)
		for { // not with left, which fails when a directory vanishes under it
			if entries, err := os.ReadDir(v.root); err == nil && len(entries) == 0 {
				break
			}
			runtime.Gosched()
		}
		waiting()
	}
	stop()
	<-done
}

func TestOptionsThatAreNone(t *testing.T) {
	for want, o := range map[string]Options{
		"root":    {MaxAge: time.Hour},
		"max-age": {Root: "/x"},
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
