package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/spf13/pflag"
	"go.uber.org/zap/zapcore"
)

// downward writes annotations like the kubelet.
func downward(annotations map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(annotations)) {
		fmt.Fprintf(&b, "%s=%q\n", name, annotations[name])
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// resolveDirectory loads settings from a directory with the two files; an empty string means
// no file.
func resolveDirectory(t *testing.T, file, annotations string, env map[string]string, args ...string) (resolved, string, error) {
	t.Helper()
	directory := t.TempDir()
	for name, content := range map[string]string{FileName: file, AnnotationsFileName: annotations} {
		if content != "" {
			write(t, filepath.Join(directory, name), content)
		}
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	Register(flags)
	must(t, flags.Parse(append(args, "--config="+directory)))
	r, err := resolve(flags)
	return r, directory, err
}

func TestWhichOfSeveralSourcesWins(t *testing.T) {
	const file = "log: {level: warn}\n"
	annotated := downward(map[string]string{"rockpool.dev/log-level": "error"})
	tests := map[string]struct {
		file, annotations string
		env               map[string]string
		args              []string
		want              zapcore.Level
	}{
		"the default":                          {want: zapcore.InfoLevel},
		"the setting at admission":             {env: map[string]string{"ROCKPOOL_DEFAULT_LOG_LEVEL": "debug"}, want: zapcore.DebugLevel},
		"the file over the one at admission":   {file: file, env: map[string]string{"ROCKPOOL_DEFAULT_LOG_LEVEL": "debug"}, want: zapcore.WarnLevel},
		"an annotation over the file":          {file: file, annotations: annotated, want: zapcore.ErrorLevel},
		"a variable over an annotation":        {annotations: annotated, env: map[string]string{"ROCKPOOL_LOG_LEVEL": "debug"}, want: zapcore.DebugLevel},
		"a flag over a variable":               {annotations: annotated, env: map[string]string{"ROCKPOOL_LOG_LEVEL": "warn"}, args: []string{"--log.level=debug"}, want: zapcore.DebugLevel},
		"another annotation sets nothing":      {file: file, annotations: downward(map[string]string{"example.com/log-level": "error"}), want: zapcore.WarnLevel},
		"an annotation for the injector alone": {file: file, annotations: downward(map[string]string{"rockpool.dev/port": "x"}), want: zapcore.WarnLevel},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r, _, err := resolveDirectory(t, test.file, test.annotations, test.env, test.args...)
			if err != nil || len(r.problems) > 0 {
				t.Fatal(err, r.problems)
			}
			if r.Log.Level != test.want {
				t.Errorf("log.level is %s, want %s", r.Log.Level, test.want)
			}
		})
	}
}

// A pod must restart even if somebody wrote an invalid setting into the cluster meanwhile.
func TestInvalidSettingsFromTheClusterAreIgnored(t *testing.T) {
	tests := map[string]struct {
		file, annotations string
		env               map[string]string
		want              string // the problem
		level             zapcore.Level
	}{
		"a bad annotation leaves the file": {
			file: "log: {level: warn}\n", annotations: downward(map[string]string{"rockpool.dev/log-level": "loud"}),
			want: `log.level: "loud" is unknown; allowed are debug, info, warn, error (from annotation rockpool.dev/log-level)`, level: zapcore.WarnLevel,
		},
		"an empty annotation": {
			file: "log: {level: warn}\n", annotations: downward(map[string]string{"rockpool.dev/log-level": " "}),
			want: "log.level: is empty; remove the annotation", level: zapcore.WarnLevel,
		},
		"an unknown annotation": {
			annotations: downward(map[string]string{"rockpool.dev/log-lvel": "warn", "rockpool.dev/log-level": "error"}),
			want:        "rockpool.dev/log-lvel: unknown annotation", level: zapcore.ErrorLevel,
		},
		"a line that no kubelet writes": {
			annotations: "rockpool.dev/log-level=error\nrockpool.dev/cache-agents=\"a\"", want: `"rockpool.dev/log-level": its value cannot be read`, level: zapcore.InfoLevel,
		},
		"a bad value in the file leaves the others": {
			file: "log: {level: warn}\nupstream: {probe-interval: soon}\n", want: `upstream.probe-interval: "soon" is not a duration`, level: zapcore.WarnLevel,
		},
		"a key that a newer injector knows": {
			file: "log: {level: warn}\nupstream: {hedging: yes}\n", want: "upstream.hedging: unknown key", level: zapcore.WarnLevel,
		},
		"a file that is not YAML leaves the annotations": {
			file: "log: [", annotations: downward(map[string]string{"rockpool.dev/log-level": "error"}), want: "configuration file", level: zapcore.ErrorLevel,
		},
		"a default that a newer injector knows": {
			env: map[string]string{"ROCKPOOL_DEFAULT_UPSTREAM_HEDGING": "yes"}, want: "ROCKPOOL_DEFAULT_UPSTREAM_HEDGING: unknown environment variable", level: zapcore.InfoLevel,
		},
		"a bad default": {
			env: map[string]string{"ROCKPOOL_DEFAULT_LOG_LEVEL": "loud"}, want: "log.level: \"loud\" is unknown", level: zapcore.InfoLevel,
		},
		"conflicting settings are ignored together": {
			file: "log: {level: warn}\n", annotations: downward(map[string]string{"rockpool.dev/upstreams": "https://127.0.0.1:10268"}),
			want: "own listener", level: zapcore.InfoLevel,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r, _, err := resolveDirectory(t, test.file, test.annotations, test.env)
			if err != nil {
				t.Fatalf("the sidecar would not start: %v", err)
			}
			if got := errors.Join(r.problems...); got == nil || !strings.Contains(got.Error(), test.want) {
				t.Errorf("want the problem %q, got %v", test.want, got)
			}
			if r.Log.Level != test.level {
				t.Errorf("log.level is %s, want %s", r.Log.Level, test.level)
			}
		})
	}
}

// Flags remain all or nothing.
func TestInvalidFlagsAreAnErrorEvenWithADirectory(t *testing.T) {
	for name, args := range map[string][]string{
		"a bad flag":                            {"--log.level=loud"},
		"conflicting flags":                     {"--upstream.servers=https://127.0.0.1:10268"},
		"flags that conflict without the files": {"--metrics.address=127.0.0.1:10268"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := resolveDirectory(t, "log: {level: warn}\n", "", nil, args...); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestCAFilesInTheDirectoryOfTheSettingsAreRejected(t *testing.T) {
	directory := t.TempDir()
	path := filepath.Join(directory, FileName)
	for _, ca := range []string{path, "/proc/self/root" + path, "/proc/thread-self/root" + path} {
		write(t, path, fmt.Sprintf("upstream.servers: https://a;ca-file=%s\n", ca))
		s := readFile(path, Keys(), directory)
		if len(s.values) > 0 || len(s.problems) != 1 || !strings.Contains(s.problems[0].Error(), "in the directory of the settings") {
			t.Errorf("%s: %v %v", ca, s.values, s.problems)
		}
	}
	write(t, path, "upstream.servers: https://a;ca-file=/etc/edge/ca.crt\n")
	if s := readFile(path, Keys(), directory); len(s.problems) > 0 || s.values["upstream.servers"] == nil {
		t.Errorf("%v %v", s.values, s.problems)
	}
}

func TestAnAnnotationThatChangesTakesEffect(t *testing.T) {
	directory := t.TempDir()
	put := func(level string) {
		files := map[string]string{FileName: yaml("one"), AnnotationsFileName: downward(map[string]string{"a": "b\nrockpool.dev/log-level=\"debug\""})}
		if level != "" {
			files[AnnotationsFileName] += "\n" + downward(map[string]string{"rockpool.dev/log-level": level})
		}
		projectVolume(t, directory, files)
	}
	put("error")
	f := follow(t, "--config="+directory)
	put("debug")
	f.eventually("log.level is debug", func() bool { return f.lastApplied().Log.Level == zapcore.DebugLevel })
	put("loud")
	if got := f.waitForLog("invalid settings are ignored; the others are in effect")["error"].(string); !strings.Contains(got, "annotation rockpool.dev/log-level") {
		t.Errorf("the error is %q", got)
	}
	if n := testutil.ToFloat64(problemCount); n != 1 {
		t.Errorf("%v problems", n)
	}
	if f.lastApplied().Log.Level != zapcore.DebugLevel {
		t.Errorf("a bad annotation has made log.level %s", f.lastApplied().Log.Level)
	}
	put("")
	f.eventually("log.level is the default", func() bool { return f.lastApplied().Log.Level == zapcore.InfoLevel })
	f.waitForLog("valid again")
	if n := testutil.ToFloat64(problemCount); n != 0 {
		t.Errorf("%v problems", n)
	}
}

// The file's author is not the author of the bad annotation.
func TestABadAnnotationDoesNotBlockTheFile(t *testing.T) {
	directory := t.TempDir()
	files := func(agents, level string) map[string]string {
		return map[string]string{FileName: yaml(agents), AnnotationsFileName: downward(map[string]string{"rockpool.dev/log-level": level})}
	}
	projectVolume(t, directory, files("one", "warn"))
	f := follow(t, "--config="+directory)
	projectVolume(t, directory, files("two", "loud"))
	f.waitForAgents("two")
	if f.lastApplied().Log.Level != zapcore.WarnLevel {
		t.Errorf("log.level is %s", f.lastApplied().Log.Level)
	}
}

func TestAnnotationsNameKeys(t *testing.T) {
	for name, key := range Annotations() {
		if key != "" && !slices.ContainsFunc(Keys(), func(k Key) bool { return k.Name == key }) {
			t.Errorf("%s sets %s, which does not exist", name, key)
		}
	}
}

func FuzzParseAnnotation(f *testing.F) {
	for _, line := range []string{"rockpool.dev/log-level=\"debug\"\n", "a=\"b\"", "rockpool.dev/x=\"\\n\\\"\"", "rockpool.dev/", "rockpool.dev/a=`b`", "rockpool.dev/a='b'"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		name, value, ok, err := parseAnnotation(line)
		if !ok {
			if value != "" || err != nil && name == "" {
				t.Errorf("%q: %q %q %v", line, name, value, err)
			}
			return
		}
		// Writing the annotation like the kubelet gives the same annotation.
		again, back, ok, err := parseAnnotation(fmt.Sprintf("%s=%q\n", name, value))
		if !ok || err != nil || again != name || back != value {
			t.Errorf("%q: %q %q becomes %q %q %v", line, name, value, again, back, err)
		}
	})
}

func TestAMissingDirectoryIsAMissingFile(t *testing.T) {
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	Register(flags)
	must(t, flags.Parse([]string{"--config=" + filepath.Join(t.TempDir(), "none")}))
	if _, err := Load(flags); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
