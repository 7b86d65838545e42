package prepare

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	clocktesting "k8s.io/utils/clock/testing"
)

// sidecarID is the sidecar's user, as the injector sets it.
const sidecarID = 65532

// TestMain lets the test binary be the prepare container: root with only CAP_CHOWN.
func TestMain(m *testing.M) {
	if root := os.Getenv("PREPARE_TEST_ROOT"); root != "" {
		if err := runContained(root); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func runContained(root string) error {
	if os.Getenv("PREPARE_TEST_DROPPED") == "" {
		// After an exec, root has the capabilities of the bounding set.
		runtime.LockOSThread()
		for c := range uintptr(unix.CAP_LAST_CAP + 1) {
			if c == unix.CAP_CHOWN {
				continue
			}
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && err != unix.EINVAL {
				return fmt.Errorf("drop capability %d: %w", c, err)
			}
		}
		return syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), "PREPARE_TEST_DROPPED=1"))
	}
	return Directory(Options{Root: root, Directory: os.Getenv("PREPARE_TEST_DIRECTORY"), UID: sidecarID, GID: sidecarID})
}

// inContainer runs Directory like the prepare container.
func inContainer(t *testing.T, root, directory string) (string, error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can be root with CAP_CHOWN alone")
	}
	cmd := exec.Command("/proc/self/exe")
	// A race-built binary otherwise sleeps for a second before it exits.
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", "PREPARE_TEST_ROOT="+root, "PREPARE_TEST_DIRECTORY="+directory)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func state(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	s := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%04o %d:%d", info.Mode().Perm(), s.Uid, s.Gid)
}

func wantState(t *testing.T, path, want string) {
	t.Helper()
	if got := state(t, path); got != want {
		t.Errorf("%s: %s, want %s", path, got, want)
	}
}

func TestWithOnlyTheChownCapability(t *testing.T) {
	tests := map[string]func(t *testing.T, root string){
		"a new directory":                      func(*testing.T, string) {},
		"a correct directory":                  func(t *testing.T, r string) { makeDirectory(t, r, "ns/sa/app", 0o700, sidecarID) },
		"a directory of another user":          func(t *testing.T, r string) { makeDirectory(t, r, "ns/sa/app", 0o700, 1000) },
		"a directory of root, left by a crash": func(t *testing.T, r string) { makeDirectory(t, r, "ns/sa/app", 0o700, 0) },
		"a directory open to others":           func(t *testing.T, r string) { makeDirectory(t, r, "ns/sa/app", 0o777, sidecarID) },
		"a directory closed to its owner":      func(t *testing.T, r string) { makeDirectory(t, r, "ns/sa/app", 0o000, 1000) },
		"levels above that other users can list": func(t *testing.T, r string) {
			makeDirectory(t, r, "ns/sa", 0o755, 0)
			makeDirectory(t, r, "ns", 0o777, 0)
		},
		"the directory of another workload": func(t *testing.T, r string) { makeDirectory(t, r, "ns/sa/other", 0o700, sidecarID) },
	}
	for name, setup := range tests {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if os.Geteuid() == 0 {
				setup(t, root)
			}
			for range 2 { // the second run finds a correct directory
				if out, err := inContainer(t, root, "ns/sa/app"); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				wantState(t, filepath.Join(root, "ns"), "0700 0:0")
				wantState(t, filepath.Join(root, "ns/sa"), "0700 0:0")
				wantState(t, filepath.Join(root, "ns/sa/app"), fmt.Sprintf("0700 %d:%d", sidecarID, sidecarID))
			}
		})
	}
}

func TestErrorsNameThePathAndARemedy(t *testing.T) {
	tests := map[string]struct {
		setup func(t *testing.T, root string)
		want  string
	}{
		"a level above that belongs to another pod": {
			func(t *testing.T, r string) { makeDirectory(t, r, "ns", 0o700, sidecarID) }, "/ns: belongs to uid 65532",
		},
		"a link as a level above": {
			func(t *testing.T, r string) {
				makeDirectory(t, r, "real/sa", 0o700, 0)
				link(t, "real", filepath.Join(r, "ns"))
			},
			"/ns: is a symbolic link",
		},
		"a link as the directory": {
			func(t *testing.T, r string) {
				makeDirectory(t, r, "ns/sa/real", 0o700, 0)
				link(t, "real", filepath.Join(r, "ns/sa/app"))
			},
			"/ns/sa/app: is a symbolic link",
		},
		"a file as a level above": {
			func(t *testing.T, r string) {
				if err := os.WriteFile(filepath.Join(r, "ns"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}, "/ns: is in the way",
		},
		"a volume that is not mounted": {func(t *testing.T, r string) { os.Remove(r) }, "is the cache volume mounted"},
		"a volume that is read-only": {func(t *testing.T, r string) {
			mount(t, "tmpfs", r, unix.MS_RDONLY, "")
		}, "/ns: read-only file system; the hostPath volume is read-only"},
		"a volume without free inodes": {func(t *testing.T, r string) {
			mount(t, "tmpfs", r, 0, "nr_inodes=2")
		}, "/ns/sa: no space left on device; the node's disk is full"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if os.Geteuid() != 0 {
				t.Skip("only root can be root with CAP_CHOWN alone")
			}
			root := filepath.Join(t.TempDir(), "cache")
			makeDirectory(t, filepath.Dir(root), "cache", 0o755, 0)
			test.setup(t, root)
			out, err := inContainer(t, root, "ns/sa/app")
			if err == nil || !strings.Contains(out, test.want) || !strings.Contains(out, root) {
				t.Errorf("got %v, %q; want %q", err, out, test.want)
			}
			if _, err := os.Lstat(filepath.Join(root, "real/sa/app")); err == nil {
				t.Error("a link was followed")
			}
		})
	}
}

func TestInvalidPaths(t *testing.T) {
	tests := map[string]struct{ directory, want string }{
		"an empty path":                  {"", "is empty"},
		"an absolute path":               {"/ns/sa/app", "is absolute"},
		"a path with two dots":           {"ns/../../etc", "has the level .."},
		"a path with a dot":              {"ns/./app", "has the level ."},
		"a path with two slashes":        {"ns//app", "an empty level"},
		"a path with a slash at its end": {"ns/app/", "an empty level"},
		"a control character":            {"ns/a\x00b", "control character"},
		"a level too long":               {"ns/" + strings.Repeat("a", 256), "more than 255 bytes"},
		"too many levels":                {strings.Repeat("a/", 16) + "a", "more than 16 levels"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			err := Directory(Options{Root: root, Directory: test.directory, UID: os.Getuid(), GID: os.Getgid()})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if left, _ := os.ReadDir(root); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	if err := Directory(Options{Root: t.TempDir(), Directory: "a", UID: -1}); err == nil {
		t.Error("uid -1 must be rejected, because chown takes it as \"do not change\"")
	}
}

func TestWithoutChangeOfOwner(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	root := t.TempDir()
	o := Options{Root: root, Directory: "ns/sa/app", UID: os.Getuid(), GID: os.Getgid()}
	var wg sync.WaitGroup
	for range 8 { // pods of one namespace start at the same time
		wg.Go(func() {
			if err := Directory(o); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	wantState(t, filepath.Join(root, "ns/sa/app"), fmt.Sprintf("0700 %d:%d", o.UID, o.GID))
}

func TestTheChangeTimeOfACorrectDirectoryIsUpdated(t *testing.T) {
	root := t.TempDir()
	if out, err := inContainer(t, root, "ns/sa/app"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	changed := func() syscall.Timespec {
		info, err := os.Lstat(filepath.Join(root, "ns/sa/app"))
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Ctim
	}
	before := changed()
	for range 100 { // file times have a resolution of a few milliseconds
		if out, err := inContainer(t, root, "ns/sa/app"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if changed() != before {
			return
		}
	}
	t.Error("the change time stays the same")
}

func TestDirectoryWaitsForTheLockOfTheVolume(t *testing.T) {
	for name, test := range map[string]struct {
		released bool
		warning  string
	}{
		"until it is released":          {released: true},
		"but not for a lock that stays": {warning: "another process holds the lock of the cache volume for 1s"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			volume, err := os.Open(root)
			if err != nil {
				t.Fatal(err)
			}
			defer volume.Close()
			if err := unix.Flock(int(volume.Fd()), unix.LOCK_EX); err != nil {
				t.Fatal(err)
			}
			fake := clocktesting.NewFakeClock(time.Now())
			var warned error
			done := make(chan error, 1)
			go func() {
				done <- Directory(Options{
					Root: root, Directory: "ns/sa/app", UID: os.Getuid(), GID: os.Getgid(),
					Patience: time.Second, Clock: fake, Warn: func(err error) { warned = err },
				})
			}()
			for !fake.HasWaiters() {
				if len(done) > 0 {
					t.Fatalf("did not wait: %v", <-done)
				}
				runtime.Gosched()
			}
			if left, _ := os.ReadDir(root); len(left) != 0 {
				t.Errorf("created while another process held the lock: %v", left)
			}
			if test.released {
				volume.Close()
			}
			for len(done) == 0 {
				if fake.HasWaiters() {
					fake.Step(time.Second)
				}
				runtime.Gosched()
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			if text := fmt.Sprint(warned); (warned != nil) != (test.warning != "") || !strings.Contains(text, test.warning) && warned != nil {
				t.Errorf("warned of %v", warned)
			}
			if _, err := os.Stat(filepath.Join(root, "ns/sa/app")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestADeniedDirectoryNamesTheSecurityModule(t *testing.T) {
	for label, want := range map[string]string{
		"system_u:system_r:container_t:s0:c1,c2": "SELinux may deny it to system_u:system_r:container_t:s0:c1,c2: set selinux_type",
		"cri-containerd.apparmor.d (enforce)":    "AppArmor may deny it by its profile cri-containerd.apparmor.d (enforce)",
		"unconfined":                             "must belong to root on the node",
		"":                                       "must belong to root on the node",
	} {
		got := closed(label)
		if !strings.Contains(got, want) {
			t.Errorf("%q: %s", label, got)
		}
		if other := label == "" || label == "unconfined"; other && strings.Contains(got, "may deny") {
			t.Errorf("%q: %s", label, got)
		}
	}
}

func makeDirectory(t *testing.T, root, path string, mode os.FileMode, id int) {
	t.Helper()
	full := filepath.Join(root, path)
	if err := os.MkdirAll(full, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(full, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(full, id, id); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func mount(t *testing.T, fs, path string, flags uintptr, data string) {
	t.Helper()
	if err := unix.Mount("none", path, fs, flags, data); err != nil {
		t.Skipf("mount %s: %v", fs, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, 0); err != nil {
			t.Error(err)
		}
	})
}
