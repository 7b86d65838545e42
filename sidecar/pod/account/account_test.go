package account

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"
	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/tests/eventually"
)

func TestMain(m *testing.M) {
	unix.Umask(0o077) // as the store sets it; the copy must be readable despite it
	goleak.VerifyTestMain(m)
}

const podCA = "pod CA\n"

// kubelet writes the source like the kubelet, in generations 1, 2, 3, ...
type kubelet struct {
	t         *testing.T
	directory string
	n         int
}

func newKubelet(t *testing.T) *kubelet {
	return &kubelet{t: t, directory: filepath.Join(t.TempDir(), "source")}
}

func (k *kubelet) write(files map[string]string) {
	k.t.Helper()
	k.n++
	generation := fmt.Sprintf("..generation_%d", k.n)
	for name, content := range files {
		path := filepath.Join(k.directory, generation, name)
		k.must(os.MkdirAll(filepath.Dir(path), 0o755))
		k.must(os.WriteFile(path, []byte(content), 0o644))
		first, _, _ := strings.Cut(name, "/")
		if err := os.Symlink("..data/"+first, filepath.Join(k.directory, first)); !errors.Is(err, fs.ErrExist) {
			k.must(err)
		}
	}
	k.must(os.Symlink(generation, filepath.Join(k.directory, "..data_tmp")))
	k.must(os.Rename(filepath.Join(k.directory, "..data_tmp"), filepath.Join(k.directory, "..data")))
	k.must(os.RemoveAll(filepath.Join(k.directory, fmt.Sprintf("..generation_%d", k.n-1))))
	entries, err := os.ReadDir(k.directory)
	k.must(err)
	for _, e := range entries {
		path := filepath.Join(k.directory, e.Name())
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			k.must(os.Remove(path))
		}
	}
}

func (k *kubelet) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

func account(token string) map[string]string {
	return map[string]string{"token": token, "namespace": "shop", "ca.crt": "cluster CA\n"}
}

func mirrored(token string) map[string]string {
	return map[string]string{"token": token, "namespace": "shop", "ca.crt": "pod CA\ncluster CA\n"}
}

func newMirror(t *testing.T, source string) *Mirror {
	return New(Options{Source: source, Mirror: filepath.Join(t.TempDir(), "mirror"), CAPEM: []byte(podCA)})
}

// visibleFiles returns the files that an application sees, by the names that it opens.
func visibleFiles(t *testing.T, directory string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(directory)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	files := map[string]string{}
	root := os.DirFS(directory)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..") {
			continue
		}
		err := fs.WalkDir(root, e.Name(), func(name string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			content, err := fs.ReadFile(root, name)
			files[name] = string(content)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// checkLayout checks for one generation, links through ..data, and modes.
func checkLayout(t *testing.T, directory string) {
	t.Helper()
	if info, err := os.Stat(directory); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("directory: %v, %v", info, err)
	}
	entries, err := os.ReadDir(directory)
	if err != nil {
		t.Fatal(err)
	}
	generations := 0
	for _, e := range entries {
		path := filepath.Join(directory, e.Name())
		target, _ := os.Readlink(path)
		switch {
		case e.Name() == "..data":
			if filepath.Base(target) != target || !generationName.MatchString(target) {
				t.Errorf("..data -> %s", target)
			}
		case e.IsDir():
			generations++
			err := filepath.WalkDir(path, func(path string, e fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				info, err := e.Info()
				want := fs.FileMode(0o644)
				if e.IsDir() {
					want = fs.ModeDir | 0o755
				}
				if err != nil || info.Mode() != want {
					t.Errorf("%s: mode %v, %v", path, info.Mode(), err)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		case target != "..data/"+e.Name():
			t.Errorf("%s -> %q", e.Name(), target)
		}
	}
	if generations != 1 {
		t.Errorf("%d generations in %v", generations, entries)
	}
}

func TestSync(t *testing.T) {
	tests := map[string]struct {
		steps func(k *kubelet, mirror string)
		want  map[string]string
	}{
		"the first copy": {func(k *kubelet, _ string) { k.write(account("1")) }, mirrored("1")},
		"the pod's CA comes before several of the cluster's": {
			func(k *kubelet, _ string) {
				k.write(map[string]string{"token": "1", "ca.crt": "cluster CA\nits next CA"})
			}, map[string]string{"token": "1", "ca.crt": "pod CA\ncluster CA\nits next CA"},
		},
		"further files, also in directories": {
			func(k *kubelet, _ string) {
				files := account("1")
				files["extra"], files["deep/er/file"] = "x", "y"
				k.write(files)
			}, with(mirrored("1"), "extra", "x", "deep/er/file", "y"),
		},
		"a plain directory, as in a test or of another program": {
			func(k *kubelet, _ string) {
				k.must(os.MkdirAll(k.directory, 0o755))
				for name, content := range account("1") {
					k.must(os.WriteFile(filepath.Join(k.directory, name), []byte(content), 0o600))
				}
			}, mirrored("1"),
		},
		"a rotated token": {
			func(k *kubelet, m string) { k.write(account("1")); k.sync(m); k.write(account("2")) }, mirrored("2"),
		},
		"a removed file": {
			func(k *kubelet, m string) {
				k.write(with(account("1"), "extra", "x", "deep/file", "y"))
				k.sync(m)
				k.write(account("1"))
			}, mirrored("1"),
		},
		"leftovers of a crash before the swap": {
			func(k *kubelet, m string) {
				k.write(account("1"))
				k.sync(m)
				k.must(os.MkdirAll(filepath.Join(m, "..2020_01_01_00_00_00.42/deep"), 0o700))
				k.must(os.Symlink("nowhere", filepath.Join(m, "..data_tmp")))
			}, mirrored("1"),
		},
		"leftovers of a crash after the swap": {
			func(k *kubelet, m string) {
				k.write(account("1"))
				k.sync(m)
				k.must(os.Remove(filepath.Join(m, "token")))
				k.must(os.Symlink("..data/gone", filepath.Join(m, "namespace2")))
				k.must(os.Remove(filepath.Join(m, "namespace2")))
				k.must(os.Symlink("..data/gone", filepath.Join(m, "gone")))
			}, mirrored("1"),
		},
		"a copy whose data was removed": {
			func(k *kubelet, m string) {
				k.write(account("1"))
				k.sync(m)
				target, err := os.Readlink(filepath.Join(m, "..data"))
				k.must(err)
				k.must(os.RemoveAll(filepath.Join(m, target)))
			}, mirrored("1"),
		},
		"a copy that was closed to others": {
			func(k *kubelet, m string) {
				k.write(account("1"))
				k.sync(m)
				k.must(os.Chmod(filepath.Join(m, "..data/token"), 0o600))
			}, mirrored("1"),
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			k := newKubelet(t)
			m := newMirror(t, k.directory)
			test.steps(k, m.o.Mirror)
			for range 2 {
				if err := m.Sync(); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(test.want, visibleFiles(t, m.o.Mirror)); diff != "" {
					t.Error(diff)
				}
				checkLayout(t, m.o.Mirror)
			}
		})
	}
}

// sync copies the source, like a sidecar that crashed afterwards.
func (k *kubelet) sync(mirror string) {
	k.t.Helper()
	k.must(New(Options{Source: k.directory, Mirror: mirror, CAPEM: []byte(podCA)}).Sync())
}

func with(files map[string]string, more ...string) map[string]string {
	files = maps.Clone(files)
	for pair := range slices.Chunk(more, 2) {
		files[pair[0]] = pair[1]
	}
	return files
}

func TestAnUnchangedSourceIsNotCopiedAgain(t *testing.T) {
	k := newKubelet(t)
	k.write(account("1"))
	m := newMirror(t, k.directory)
	generation := func() string {
		if err := m.Sync(); err != nil {
			t.Fatal(err)
		}
		target, err := os.Readlink(filepath.Join(m.o.Mirror, "..data"))
		if err != nil {
			t.Fatal(err)
		}
		return target
	}
	if a, b := generation(), generation(); a != b {
		t.Errorf("%s became %s", a, b)
	}
}

func TestSyncFails(t *testing.T) {
	tests := map[string]struct {
		steps func(k *kubelet, m *Mirror)
		want  []string
		files map[string]string
	}{
		"no source": {
			func(*kubelet, *Mirror) {}, []string{"source", "no such file", "automountServiceAccountToken"}, map[string]string{},
		},
		"no token: the rest is copied": {
			func(k *kubelet, _ *Mirror) { k.write(map[string]string{"namespace": "shop", "ca.crt": "cluster CA\n"}) },
			[]string{"source/token", "automountServiceAccountToken"}, map[string]string{"namespace": "shop", "ca.crt": "pod CA\ncluster CA\n"},
		},
		"an empty token counts as missing": {
			func(k *kubelet, _ *Mirror) { k.write(account("\n")) }, []string{"source/token"}, mirrored("\n"),
		},
		"no CA: the copy has the pod's own": {
			func(k *kubelet, _ *Mirror) { k.write(map[string]string{"token": "1"}) },
			[]string{"source/ca.crt"}, map[string]string{"token": "1", "ca.crt": podCA},
		},
		"a removed token stays in the copy": {
			func(k *kubelet, m *Mirror) {
				k.write(account("1"))
				k.sync(m.o.Mirror)
				k.write(map[string]string{"namespace": "shop", "ca.crt": "cluster CA\n"})
			}, []string{"source/token"}, mirrored("1"),
		},
		"a removed source stays in the copy": {
			func(k *kubelet, m *Mirror) {
				k.write(account("1"))
				k.sync(m.o.Mirror)
				k.must(os.RemoveAll(k.directory))
			}, []string{"source: no such file"}, mirrored("1"),
		},
		"a source too large for memory": {
			func(k *kubelet, _ *Mirror) { k.write(with(account("1"), "big", strings.Repeat("x", maxSize))) },
			[]string{"more than"}, map[string]string{},
		},
		"a copy that cannot be made": {
			func(k *kubelet, m *Mirror) {
				k.write(account("1"))
				k.must(os.WriteFile(m.o.Mirror, nil, 0o600))
			}, []string{"mirror", "not a directory"}, nil,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			k := newKubelet(t)
			m := newMirror(t, k.directory)
			test.steps(k, m)
			err := m.Sync()
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("want %q in: %v", want, err)
				}
			}
			if test.files == nil {
				return
			}
			if diff := cmp.Diff(test.files, visibleFiles(t, m.o.Mirror)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAFileOfAnotherProgramIsLeftAlone(t *testing.T) {
	k := newKubelet(t)
	k.write(account("1"))
	m := newMirror(t, k.directory)
	theirs := filepath.Join(m.o.Mirror, "token")
	k.must(os.MkdirAll(m.o.Mirror, 0o755))
	k.must(os.WriteFile(theirs, []byte("theirs"), 0o644))
	if err := m.Sync(); err == nil || !strings.Contains(err.Error(), theirs+": is in the way") {
		t.Errorf("got %v, want an error with the path", err)
	}
	if content, err := os.ReadFile(theirs); string(content) != "theirs" {
		t.Errorf("the file is now %q, %v", content, err)
	}
}

func TestToken(t *testing.T) {
	k := newKubelet(t)
	m := newMirror(t, k.directory)
	if _, err := m.Token(); err == nil || !strings.Contains(err.Error(), k.directory+"/token") {
		t.Errorf("got %v, want an error with the path", err)
	}
	k.write(account("1\n"))
	if got, err := m.Token(); got != "1" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	k.write(account("2"))
	if got, err := m.Token(); got != "2" || err != nil {
		t.Errorf("after rotation: %q, %v", got, err)
	}
	k.write(account(""))
	if _, err := m.Token(); err == nil {
		t.Error("an empty token is accepted")
	}
}

// TestReadersNeverSeeAMix reads continuously while generations are replaced, like a client
// library: through ..data, and through the file names.
func TestReadersNeverSeeAMix(t *testing.T) {
	k := newKubelet(t)
	generation := func(n int) map[string]string {
		// Different lengths, so that the test would detect a file overwritten in place.
		text := strings.Repeat(fmt.Sprintf("%d,", n), 1+n%7*100)
		return map[string]string{"token": text, "namespace": text, "ca.crt": text + "\n"}
	}
	k.write(generation(0))
	m := newMirror(t, k.directory)
	if err := m.Sync(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	reads, gone := 0, 0
	wg.Go(func() {
		for ctx.Err() == nil {
			target, err := os.Readlink(filepath.Join(m.o.Mirror, "..data"))
			if err != nil {
				t.Errorf("..data must always exist: %v", err)
				return
			}
			token, err1 := os.ReadFile(filepath.Join(m.o.Mirror, target, "token"))
			namespace, err2 := os.ReadFile(filepath.Join(m.o.Mirror, target, "namespace"))
			ca, err3 := os.ReadFile(filepath.Join(m.o.Mirror, target, "ca.crt"))
			if err := errors.Join(err1, err2, err3); errors.Is(err, fs.ErrNotExist) {
				gone++ // replaced meanwhile, as can happen with the kubelet's own
				continue
			} else if err != nil {
				t.Error(err)
				return
			}
			if string(token) != string(namespace) || string(ca) != podCA+string(token)+"\n" {
				t.Errorf("a mix: token %.8q, namespace %.8q, ca.crt %.8q", token, namespace, ca)
				return
			}
			reads++
		}
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			token, err := os.ReadFile(filepath.Join(m.o.Mirror, "token"))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			n := 0
			if _, scanErr := fmt.Sscanf(string(token), "%d,", &n); err != nil || scanErr != nil || string(token) != generation(n)["token"] {
				t.Errorf("half a token: %.8q, %v", token, err)
				return
			}
		}
	})
	for n := 1; n <= 100; n++ {
		k.write(generation(n))
		if err := m.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	wg.Wait()
	if reads == 0 {
		t.Errorf("no read was complete (%d times too late)", gone)
	}
	checkLayout(t, m.o.Mirror)
}

// startRun runs the mirror until the test ends.
func startRun(t *testing.T, m *Mirror) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func shown(m *Mirror, token string) func() bool {
	return func() bool {
		got, err := os.ReadFile(filepath.Join(m.o.Mirror, "token"))
		return err == nil && string(got) == token
	}
}

func TestRunFollowsARotationThatInotifyReports(t *testing.T) {
	k := newKubelet(t)
	k.write(account("1"))
	m := newMirror(t, k.directory)
	fake := clocktesting.NewFakeClock(time.Now())
	m.o.Clock = fake // never advances: only the watch can report the rotation
	startRun(t, m)
	eventually.True(t, "the first copy", shown(m, "1"))
	for n := 2; n < 6; n++ {
		eventually.True(t, "Run waits", fake.HasWaiters)
		k.write(account(fmt.Sprint(n)))
		eventually.True(t, "a rotated token", shown(m, fmt.Sprint(n)))
	}
}

func TestRunReadsAtIntervals(t *testing.T) {
	k := newKubelet(t)
	k.write(account("1"))
	m := newMirror(t, k.directory)
	fake := clocktesting.NewFakeClock(time.Now())
	m.o.Clock = fake
	startRun(t, m)
	eventually.True(t, "the first copy", shown(m, "1"))
	eventually.True(t, "Run waits", fake.HasWaiters)
	// Damage the copy, which no watch covers.
	target, err := os.Readlink(filepath.Join(m.o.Mirror, "..data"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(m.o.Mirror, target, "token")); err != nil {
		t.Fatal(err)
	}
	fake.Step(DefaultInterval)
	eventually.True(t, "the copy to be repaired", shown(m, "1"))
}

func TestRunRetriesSoon(t *testing.T) {
	k := newKubelet(t)
	m := newMirror(t, k.directory)
	fake := clocktesting.NewFakeClock(time.Now())
	m.o.Clock = fake
	startRun(t, m)
	eventually.True(t, "Run waits", fake.HasWaiters)
	k.write(account("1"))
	fake.Step(firstRetry)
	eventually.True(t, "the first copy", shown(m, "1"))
}

// The kubelet replaces a generation while it is read, and removes the old one
// file by file.
func TestASourceIsReadFromOneGeneration(t *testing.T) {
	tests := map[string]func(k *kubelet, generation string){
		"replaced before the listing, with a file already removed": func(k *kubelet, generation string) {
			k.must(os.Remove(filepath.Join(generation, "namespace")))
			k.n = 10 // keeps the rest of the old generation
			k.write(account("2"))
		},
		"replaced and removed": func(k *kubelet, _ string) { k.write(account("2")) },
	}
	for name, replace := range tests {
		t.Run(name, func(t *testing.T) {
			k := newKubelet(t)
			k.write(account("1"))
			first := true
			files, err := readSource(k.directory, func(generation string) (map[string][]byte, error) {
				if first {
					first = false
					replace(k, generation)
				}
				return readTree(generation)
			})
			if err != nil || len(files) != 3 || string(files["token"]) != "2" {
				t.Errorf("%d files, token %q, %v", len(files), files["token"], err)
			}
		})
	}
}

func TestAReadOfASourceThatKeepsChangingFails(t *testing.T) {
	k := newKubelet(t)
	k.write(account("1"))
	_, err := readSource(k.directory, func(string) (map[string][]byte, error) {
		k.write(account("x"))
		return map[string][]byte{}, nil
	})
	if err == nil || !strings.Contains(err.Error(), k.directory+": keeps changing") {
		t.Errorf("got %v", err)
	}
}

func TestRunContinuesWithoutASource(t *testing.T) {
	k := newKubelet(t)
	m := newMirror(t, k.directory)
	fake := clocktesting.NewFakeClock(time.Now())
	m.o.Clock = fake
	core, logs := observer.New(zap.InfoLevel)
	m.o.Logger = zap.New(core)
	startRun(t, m)
	for range 40 { // a retry time that doubled without a limit would overflow
		eventually.True(t, "Run waits", fake.HasWaiters)
		fake.Step(DefaultInterval)
	}
	eventually.True(t, "Run waits", fake.HasWaiters)
	if logs.Len() != 1 || !strings.Contains(logs.All()[0].ContextMap()["error"].(string), k.directory) {
		t.Errorf("want the error once, with the path: %v", logs.All())
	}
	k.write(account("1"))
	fake.Step(DefaultInterval)
	eventually.True(t, "the first copy", shown(m, "1"))
	eventually.True(t, "the recovery is logged", func() bool { return logs.FilterMessageSnippet("copied again").Len() == 1 })
	// The watch works now.
	eventually.True(t, "Run waits", fake.HasWaiters)
	k.write(account("2"))
	eventually.True(t, "a rotated token", shown(m, "2"))
}
