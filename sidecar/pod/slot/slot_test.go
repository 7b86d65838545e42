package slot

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary be the other pod: it holds a slot until killed.
func TestMain(m *testing.M) {
	if directory := os.Getenv("SLOT_TEST_HOLD"); directory != "" {
		s, err := Acquire(directory, "", nil)
		if err != nil {
			os.Stdout.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Stdout.WriteString(s.Path + "\n")
		os.Stdin.Read(make([]byte, 1)) // ends with the test at the latest
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func acquire(t *testing.T, directory, want string) *Slot {
	t.Helper()
	s, err := Acquire(directory, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if got := filepath.Base(s.Path); got != want {
		t.Fatalf("got slot %s, want %s", got, want)
	}
	return s
}

func TestSlotsAreAcquiredInOrderAndReused(t *testing.T) {
	directory := t.TempDir()
	first := acquire(t, directory, "0")
	acquire(t, directory, "1")
	info, err := os.Stat(first.Path)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("mode %v, %v; want 0700", info.Mode(), err)
	}
	recorded := filepath.Join(first.Path, "rockpool.db")
	if err := os.WriteFile(recorded, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	acquire(t, directory, "0")
	if _, err := os.Stat(recorded); err != nil {
		t.Errorf("the predecessor's recordings must stay: %v", err)
	}
}

func TestAKilledPodReleasesItsSlot(t *testing.T) {
	directory := t.TempDir()
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), "SLOT_TEST_HOLD="+directory)
	stdin, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || filepath.Base(strings.TrimSpace(line)) != "0" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	acquire(t, directory, "1")
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	other.Wait()
	acquire(t, directory, "0")
}

func TestAllSlotsHeld(t *testing.T) {
	directory := t.TempDir()
	for range Max {
		s, err := Acquire(directory, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
	}
	_, err := Acquire(directory, "", nil)
	if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), directory) {
		t.Errorf("got %v, want ErrBusy with the path", err)
	}
}

func TestAcquireInSpiteOfObstacles(t *testing.T) {
	tests := map[string]struct {
		setup func(t *testing.T, directory string)
		want  string // the slot
		fail  string // or a part of the error
	}{
		"a file in place of slot 0 is skipped": {
			setup: func(t *testing.T, dir string) { write(t, filepath.Join(dir, "0")) },
			want:  "1",
		},
		"a lock that is a link is skipped": {
			setup: func(t *testing.T, dir string) {
				mkdir(t, filepath.Join(dir, "0"), 0o700)
				elsewhere := filepath.Join(dir, "elsewhere")
				if err := os.Symlink(elsewhere, filepath.Join(dir, "0", lockName)); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if _, err := os.Lstat(elsewhere); err == nil {
						t.Error("the link was followed")
					}
				})
			},
			want: "1",
		},
		"a lock that is a link to the lock of another slot is skipped": {
			setup: func(t *testing.T, dir string) {
				mkdir(t, filepath.Join(dir, "0"), 0o700)
				mkdir(t, filepath.Join(dir, "7"), 0o700)
				if err := os.Symlink("../7/lock", filepath.Join(dir, "0", lockName)); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if _, err := os.Lstat(filepath.Join(dir, "7", lockName)); err == nil {
						t.Error("the link was followed")
					}
				})
			},
			want: "1",
		},
		"a slot that is a link is skipped": {
			setup: func(t *testing.T, dir string) {
				mkdir(t, filepath.Join(dir, "elsewhere"), 0o700)
				if err := os.Symlink("elsewhere", filepath.Join(dir, "0")); err != nil {
					t.Fatal(err)
				}
			},
			want: "1",
		},
		"a slot that is open to others is closed": {
			setup: func(t *testing.T, dir string) { mkdir(t, filepath.Join(dir, "0"), 0o755) },
			want:  "0",
		},
		"a missing directory": {
			setup: func(t *testing.T, dir string) { os.Remove(dir) },
			fail:  "no such file",
		},
		"a file in place of the directory": {
			setup: func(t *testing.T, dir string) { os.Remove(dir); write(t, dir) },
			fail:  "not a directory",
		},
		"a directory that cannot be written": {
			setup: func(t *testing.T, dir string) {
				if os.Geteuid() == 0 {
					t.Skip("root may write everywhere")
				}
				if err := os.Chmod(dir, 0o500); err != nil {
					t.Fatal(err)
				}
			},
			fail: "permission denied",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			directory := filepath.Join(t.TempDir(), "cache")
			mkdir(t, directory, 0o700)
			test.setup(t, directory)
			if test.fail == "" {
				s := acquire(t, directory, test.want)
				if info, err := os.Stat(s.Path); err != nil || info.Mode().Perm() != 0o700 {
					t.Errorf("mode %v, %v; want 0700", info.Mode(), err)
				}
				return
			}
			s, err := Acquire(directory, "", nil)
			if err == nil {
				s.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), directory) || !strings.Contains(err.Error(), test.fail) {
				t.Errorf("got %v; want %q and the path", err, test.fail)
			}
		})
	}
}

func TestAcquireAndCloseTouchTheLock(t *testing.T) {
	directory := t.TempDir()
	s := acquire(t, directory, "0")
	lock := filepath.Join(s.Path, lockName)
	past := time.Now().Add(-24 * time.Hour)
	checkUsed := func(what string) {
		t.Helper()
		info, err := os.Stat(lock)
		if err != nil || time.Since(info.ModTime()) > time.Hour {
			t.Errorf("%s: the lock's time is %v, %v; want now", what, info.ModTime(), err)
		}
		if err := os.Chtimes(lock, past, past); err != nil {
			t.Fatal(err)
		}
	}
	checkUsed("created")
	s.Close()
	checkUsed("released")
	s = acquire(t, directory, "0")
	checkUsed("acquired again")
	s.Close()
}

func TestLockAndAcquireExcludeEachOther(t *testing.T) {
	directory := t.TempDir()
	workload, err := os.OpenRoot(directory)
	if err != nil {
		t.Fatal(err)
	}
	defer workload.Close()
	if _, err := Lock(workload, "0"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no slot: %v", err)
	}
	mkdir(t, filepath.Join(directory, "0"), 0o700)
	if _, err := Lock(workload, "0"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no lock in the slot: %v", err)
	}
	s := acquire(t, directory, "0")
	if _, err := Lock(workload, "0"); !errors.Is(err, ErrHeld) {
		t.Errorf("a slot that a pod holds: %v", err)
	}
	s.Close()
	lock, err := Lock(workload, "0")
	if err != nil {
		t.Fatal(err)
	}
	acquire(t, directory, "1")
	lock.Close()
	acquire(t, directory, "0")
}

func TestNamesOfSlots(t *testing.T) {
	for name, want := range map[string]bool{"0": true, "63": true, "64": false, "-1": false, "01": false, "+1": false, "": false, "a": false, "0.removed": false} {
		if Is(name) != want {
			t.Errorf("Is(%q) = %v", name, !want)
		}
	}
}

func mkdir(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Mkdir(path, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}
