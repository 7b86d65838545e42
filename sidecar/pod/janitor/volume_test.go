package janitor

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/sidecar/pod/prepare"
	"rockpool.dev/sidecar/pod/slot"
)

const (
	maxAge    = 24 * time.Hour
	sidecarID = 65532 // the user that owns the slots
)

// TestMain lets the test binary be a pod that holds a slot until it is killed, or the
// janitor's container: root with only CAP_DAC_OVERRIDE. It can also be the prepare container: root
// with the capabilities that JANITOR_TEST_TIDY lists.
func TestMain(m *testing.M) {
	if workload := os.Getenv("JANITOR_TEST_HOLD"); workload != "" {
		s, err := slot.Acquire(workload, "", nil)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(s.Path)
		os.Stdin.Read(make([]byte, 1)) // ends with the test at the latest
		os.Exit(0)
	}
	if root := os.Getenv("JANITOR_TEST_ROOT"); root != "" {
		if err := runContained(root); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// volume is a cache volume on the disk. Its clock is so far ahead that new files are old;
// touch makes a file young.
type volume struct {
	t     *testing.T
	root  string
	clock *clocktesting.FakeClock
}

func newVolume(t *testing.T) *volume {
	return &volume{t: t, root: t.TempDir(), clock: clocktesting.NewFakeClock(time.Now().Add(2 * maxAge))}
}

func (v *volume) path(p string) string { return filepath.Join(v.root, p) }

// workload creates the directory like the prepare container.
func (v *volume) workload(directory string) string {
	v.t.Helper()
	if err := prepare.Directory(prepare.Options{Root: v.root, Directory: directory, UID: os.Getuid(), GID: os.Getgid()}); err != nil {
		v.t.Fatal(err)
	}
	return v.path(directory)
}

// slot creates a slot of 8 KiB that a pod has used and released.
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

// touch sets the file's time as if it had been written recently.
func (v *volume) touch(path string) {
	v.t.Helper()
	if err := os.Chtimes(v.path(path), time.Time{}, v.clock.Now().Add(-maxAge/2)); err != nil {
		v.t.Fatal(err)
	}
}

// hold starts a process that holds a slot of the workload until the test ends.
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

// paths lists all files and directories in the volume.
func (v *volume) paths() []string {
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

func runContained(root string) error {
	kept := []uintptr{unix.CAP_DAC_OVERRIDE}
	tidies := os.Getenv("JANITOR_TEST_TIDY")
	switch tidies {
	case "CHOWN":
		kept = []uintptr{unix.CAP_CHOWN}
	case "CHOWN,DAC_OVERRIDE":
		kept = append(kept, unix.CAP_CHOWN)
	}
	if os.Getenv("JANITOR_TEST_DROPPED") == "" {
		// After an exec, root has the capabilities of the bounding set.
		runtime.LockOSThread()
		for c := range uintptr(unix.CAP_LAST_CAP + 1) {
			if slices.Contains(kept, c) {
				continue
			}
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && err != unix.EINVAL {
				return fmt.Errorf("drop capability %d: %w", c, err)
			}
		}
		return syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), "JANITOR_TEST_DROPPED=1"))
	}
	if tidies != "" {
		r, err := Tidy(context.Background(), Options{Root: root, MaxSlots: 1, Clock: clocktesting.NewFakeClock(time.Now().Add(2 * maxAge))}, awake)
		fmt.Printf("%+v\n", r)
		return err
	}
	j, err := New(Options{Root: root, MaxAge: maxAge, Clock: clocktesting.NewFakeClock(time.Now().Add(2 * maxAge))})
	if err != nil {
		return err
	}
	r, err := j.Once(context.Background())
	fmt.Printf("%+v\n", r)
	return err
}
