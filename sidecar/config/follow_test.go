package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/sidecar/api/agent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// following is a running Follow, until the test ends.
type following struct {
	t     *testing.T
	clock *clocktesting.FakeClock
	logs  *observer.ObservedLogs

	mu      sync.Mutex
	applied []Config
}

// follow runs Follow as the sidecar does.
func follow(t *testing.T, args ...string) *following {
	t.Helper()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	Register(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	c, err := Load(flags)
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.InfoLevel)
	f := &following{t: t, clock: clocktesting.NewFakeClock(time.Now()), logs: logs}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Follow(ctx, FollowOptions{Flags: flags, Config: c, Apply: f.apply, Interval: time.Hour, Clock: f.clock, Logger: zap.New(core)})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Follow: %v", err)
		}
	})
	f.eventually("it waits", f.clock.HasWaiters)
	return f
}

// apply fails for the host "refused", which passes all checks of the configuration.
func (f *following) apply(c Config) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.ContainsFunc(c.Upstream.Servers, func(s Server) bool { return s.URL.Hostname() == "refused" }) {
		return errors.New("refused")
	}
	f.applied = append(f.applied, c)
	return nil
}

func (f *following) lastApplied() (c Config) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.applied) > 0 {
		c = f.applied[len(f.applied)-1]
	}
	return c
}

// eventually polls, because the file system cannot notify a test. The clock advances by no
// more than a change needs, so that the watch reports it and not the interval.
func (f *following) eventually(what string, condition func() bool) {
	f.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !condition() {
		select {
		case <-tick.C:
			f.clock.Step(debounce)
		case <-deadline:
			f.t.Fatalf("never: %s\n%v", what, f.logs.All())
		}
	}
}

// waitForAgents waits until cache.agents is list.
func (f *following) waitForAgents(list string) {
	f.t.Helper()
	f.eventually("cache.agents is "+list, func() bool {
		return cmp.Equal(f.lastApplied().Cache.Agents, agents(list), cmp.AllowUnexported(agent.Selector{}))
	})
}

// waitForLog waits for a log line with message and returns its fields.
func (f *following) waitForLog(message string) map[string]any {
	f.t.Helper()
	f.eventually("the log says "+message, func() bool { return f.logs.FilterMessageSnippet(message).Len() > 0 })
	return f.logs.FilterMessageSnippet(message).All()[0].ContextMap()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), 0o600))
}

// rename replaces a file like an editor.
func rename(t *testing.T, path, content string) {
	t.Helper()
	write(t, path+".new", content)
	must(t, os.Rename(path+".new", path))
}

// projectVolume replaces the files of a directory like the kubelet for a ConfigMap: a new
// generation, a rename of ..data, then the links that go through it.
func projectVolume(t *testing.T, directory string, files map[string]string) {
	t.Helper()
	before, _ := os.Readlink(filepath.Join(directory, "..data"))
	generation := fmt.Sprintf("..%d", time.Now().UnixNano())
	must(t, os.MkdirAll(filepath.Join(directory, generation), 0o755))
	for name, content := range files {
		write(t, filepath.Join(directory, generation, name), content)
	}
	must(t, os.Symlink(generation, filepath.Join(directory, "..data_tmp")))
	must(t, os.Rename(filepath.Join(directory, "..data_tmp"), filepath.Join(directory, "..data")))
	for name := range files {
		if err := os.Symlink("..data/"+name, filepath.Join(directory, name)); !errors.Is(err, fs.ErrExist) {
			must(t, err)
		}
	}
	entries, err := os.ReadDir(directory)
	must(t, err)
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(directory, e.Name())); errors.Is(err, fs.ErrNotExist) {
			must(t, os.Remove(filepath.Join(directory, e.Name())))
		}
	}
	if before != "" {
		must(t, os.RemoveAll(filepath.Join(directory, before)))
	}
}

func yaml(agents string) string { return "cache: {agents: " + fmt.Sprintf("%q", agents) + "}\n" }

func TestAChangedFileTakesEffect(t *testing.T) {
	tests := map[string]func(t *testing.T, path, content string){
		"written in place":     write,
		"replaced by renaming": rename,
		"in the volume of a ConfigMap": func(t *testing.T, path, content string) {
			projectVolume(t, filepath.Dir(path), map[string]string{filepath.Base(path): content})
		},
		"a link to another directory": relink,
	}
	for name, put := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "settings.yaml")
			put(t, path, yaml("one"))
			f := follow(t, "--config="+path)
			for _, list := range []string{"two", "!three", "*"} {
				put(t, path, yaml(list))
				f.waitForAgents(list)
			}
			put(t, path, "log: {level: debug}\n")
			f.eventually("log.level is debug", func() bool { return f.lastApplied().Log.Level == zapcore.DebugLevel })
		})
	}
}

func relink(t *testing.T, path, content string) {
	t.Helper()
	target := filepath.Join(t.TempDir(), "target.yaml")
	write(t, target, content)
	must(t, os.Symlink(target, path+".new"))
	must(t, os.Rename(path+".new", path))
}

func TestAFileInADirectoryComesAndGoes(t *testing.T) {
	tests := map[string]struct {
		put, remove func(t *testing.T, directory string)
	}{
		"a plain one": {
			func(t *testing.T, d string) { rename(t, filepath.Join(d, FileName), yaml("!kubectl")) },
			func(t *testing.T, d string) { must(t, os.Remove(filepath.Join(d, FileName))) },
		},
		"an optional ConfigMap": {
			func(t *testing.T, d string) { projectVolume(t, d, map[string]string{FileName: yaml("!kubectl")}) },
			func(t *testing.T, d string) { projectVolume(t, d, nil) },
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			f := follow(t, "--config="+directory)
			for range 2 {
				tt.put(t, directory)
				f.waitForAgents("!kubectl")
				tt.remove(t, directory)
				f.waitForAgents("*")
			}
		})
	}
}

func TestAnUnreportedChangeIsFoundAtTheNextInterval(t *testing.T) {
	target, path := filepath.Join(t.TempDir(), "target.yaml"), filepath.Join(t.TempDir(), "link.yaml")
	write(t, target, yaml("one"))
	must(t, os.Symlink(target, path))
	f := follow(t, "--config="+path)
	write(t, target, yaml("two"))
	f.clock.Step(time.Hour)
	f.waitForAgents("two")
}

func TestAnInvalidFileChangesNothingAndIsLoggedOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings.yaml")
	write(t, path, yaml("one"))
	f := follow(t, "--config="+path)
	failed := testutil.ToFloat64(reloads.WithLabelValues("failed"))
	const complaint = "keeping the settings in effect"

	rename(t, path, yaml("two")+"log: {level: loud}\n")
	if got := f.waitForLog(complaint)["error"].(string); !strings.Contains(got, `log.level: "loud"`) || !strings.Contains(got, path) {
		t.Errorf("the error is %q", got)
	}
	rename(t, path, yaml("three")+"log: {level: loud}\n")
	f.eventually("the second read", func() bool { return testutil.ToFloat64(reloads.WithLabelValues("failed")) >= failed+2 })
	if n := f.logs.FilterMessageSnippet(complaint).Len(); n != 1 {
		t.Errorf("the same error was logged %d times", n)
	}
	must(t, os.Remove(path))
	f.eventually("another error", func() bool { return f.logs.FilterMessageSnippet(complaint).Len() == 2 })
	if len(f.applied) > 0 {
		t.Errorf("applied: %+v", f.applied)
	}

	rename(t, path, yaml("four"))
	f.waitForAgents("four")
	f.waitForLog("valid again")
}

func TestAConfigurationThatCannotBeAppliedChangesNothing(t *testing.T) {
	tests := map[string]struct{ file, says string }{
		"an address that Apply rejects":                 {"upstream.servers: https://refused\nlog: {level: debug}\n", "refused"},
		"an upstream at the listener that is in effect": {"listen.address: 127.0.0.1:1\nupstream.servers: https://127.0.0.1:10268\nlog: {level: debug}\n", "own listener"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "settings.yaml")
			write(t, path, "upstream.servers: https://a\n")
			f := follow(t, "--config="+path)
			rename(t, path, test.file)
			if got := f.waitForLog("keeping the settings in effect")["error"].(string); !strings.Contains(got, test.says) {
				t.Errorf("the error is %q", got)
			}
			if len(f.applied) > 0 {
				t.Errorf("applied: %+v", f.applied)
			}
			rename(t, path, "upstream.servers: https://b\n")
			f.eventually("the next one is in effect", func() bool { return cmp.Equal(f.lastApplied().Upstream.Servers, hosts("b:443")) })
			f.waitForLog("valid again")
		})
	}
}

// Parsing takes a thousand allocations; a quiet node has one read in 30 s for each pod.
func TestAnUnchangedFileIsNotParsedAgain(t *testing.T) {
	for name, test := range map[string]struct {
		content string
		parsed  bool
	}{
		"valid settings": {"log:\n  level: warn\n", false},
		"a CA file, which may be elsewhere by now": {"upstream:\n  servers: https://192.0.2.1:6443;ca-file=/etc/ca.crt\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), FileName)
			if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
			Register(flags)
			if err := flags.Parse([]string{"--config", filepath.Dir(path)}); err != nil {
				t.Fatal(err)
			}
			c, err := Load(flags)
			if err != nil {
				t.Fatal(err)
			}
			f := &follower{FollowOptions: FollowOptions{Flags: flags, Config: c, Apply: func(Config) error { return nil }, Logger: zap.NewNop()}}
			f.reload()
			if got := testing.AllocsPerRun(10, f.reload) > 500; got != test.parsed {
				t.Errorf("parsed: %v, want %v", got, test.parsed)
			}
			if f.lastError != "" {
				t.Error(f.lastError)
			}
		})
	}
}

func TestOtherKeysWaitForARestart(t *testing.T) {
	const later = "after a restart"
	path := filepath.Join(t.TempDir(), "settings.yaml")
	write(t, path, "cache: {max-size: 64Mi}\n")
	f := follow(t, "--config="+path)
	rename(t, path, "cache: {max-size: 65536Ki}\nupstream: {probe-interval: 2000ms}\n"+yamlAgents("one"))
	f.waitForAgents("one")
	if n := f.logs.FilterMessageSnippet(later).Len(); n != 0 {
		t.Errorf("no such key has changed: %v", f.logs.All())
	}
	rename(t, path, "cache: {max-size: 128Mi}\nshutdown: {grace: 1s}\n"+yamlAgents("two"))
	f.waitForAgents("two")
	if got := f.waitForLog(later)["keys"]; !cmp.Equal(got, []any{"cache.max-size", "shutdown.grace"}) {
		t.Errorf("keys %v", got)
	}
	rename(t, path, "cache: {max-size: 128Mi}\nshutdown: {grace: 1s}\n"+yamlAgents("three"))
	f.waitForAgents("three")
	if n := f.logs.FilterMessageSnippet(later).Len(); n != 1 {
		t.Errorf("logged %d times", n)
	}
	for _, c := range f.applied {
		if c.Cache.MaxSize != 64<<20 || c.Shutdown.Grace != 10*time.Second {
			t.Errorf("in effect: %d %s", c.Cache.MaxSize, c.Shutdown.Grace)
		}
	}
}

// yamlAgents sets cache.agents in a file that also has a section cache.
func yamlAgents(list string) string { return fmt.Sprintf("cache.agents: %q\n", list) }

func TestFlagsAndVariablesOverrideAChangedFile(t *testing.T) {
	t.Setenv("ROCKPOOL_LOG_LEVEL", "warn")
	directory := t.TempDir()
	t.Setenv("ROCKPOOL_CONFIG", directory)
	f := follow(t, "--cache.agents=flag")
	done := testutil.ToFloat64(reloads.WithLabelValues("unchanged"))
	rename(t, filepath.Join(directory, FileName), yaml("file")+"log: {level: debug}\n")
	f.eventually("the file is read", func() bool { return testutil.ToFloat64(reloads.WithLabelValues("unchanged")) > done })
	if len(f.applied) > 0 {
		t.Errorf("applied: %+v", f.applied)
	}
}

func TestWithoutAFileThereIsNothingToFollow(t *testing.T) {
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	Register(flags)
	if err := Follow(t.Context(), FollowOptions{Flags: flags}); err != nil {
		t.Fatal(err)
	}
}

// An editor that writes in place truncates the file first: a read at that moment would find
// the defaults.
func TestAChangeIsReadWhenItIsComplete(t *testing.T) {
	watcher := &fsnotify.Watcher{Events: make(chan fsnotify.Event), Errors: make(chan error)}
	clock := clocktesting.NewFakeClock(time.Now())
	f := &follower{FollowOptions: FollowOptions{Interval: time.Hour, Clock: clock}}
	done := make(chan bool, 1)
	go func() { done <- f.waitForChange(t.Context(), watcher, true) }()
	for range 3 { // the truncation, and two writes: each is received while the debounce runs
		select {
		case watcher.Events <- fsnotify.Event{Op: fsnotify.Write}:
		case <-done:
			t.Fatal("it does not wait for further events")
		}
	}
	clock.Step(debounce)
	if !<-done {
		t.Error("it has ended")
	}
}

func TestTheRuntimeKeysAreMarked(t *testing.T) {
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	Register(flags)
	var marked []string
	flags.VisitAll(func(f *pflag.Flag) {
		if strings.Contains(f.Usage, "at run time") {
			marked = append(marked, f.Name)
		}
	})
	want := []string{
		"cache.agents", "cache.exclude", "filters.choice", "filters.discardcloudservice", "filters.drop-unknown", "filters.forwardkubesvctraffic", "filters.keep",
		"filters.masterservice", "filters.nodeportisolation", "filters.pool", "filters.pools", "filters.servicetopology", "filters.zone",
		"log.level", "report.kinds", "upstream.connect-timeout", "upstream.failure-threshold", "upstream.keepalive-interval", "upstream.mode",
		"upstream.probe-interval", "upstream.probe-timeout", "upstream.retry-interval", "upstream.servers", "upstream.success-threshold", "upstream.tls-server-name",
	}
	if !slices.Equal(marked, want) {
		t.Errorf("%v, want %v", marked, want)
	}
}
