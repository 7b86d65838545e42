package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"rockpool.dev/tests/bed/internal/gobuild"
	"rockpool.dev/tests/bed/internal/process"
)

// versionModule is the module whose version the built kube-apiserver and kubectl report. After a
// plain `go build` they report v0.0.0, which clients take for a very old server.
const versionModule = "k8s.io/kubernetes"

// buildTools returns the path of each wanted tool, after building those that are not in a cache
// directory.
func buildTools(ctx context.Context, wanted []tool, w io.Writer) (map[string]string, error) {
	paths := map[string]string{}
	for i, t := range wanted {
		var err error
		t.place, t.of = i+1, len(wanted)
		if paths[t.name], err = t.cached(ctx, w); err != nil {
			return nil, err
		}
	}
	return paths, nil
}

// cached returns the path of t in the cache directory of its module, after building it if
// necessary.
func (t tool) cached(ctx context.Context, w io.Writer) (string, error) {
	source, err := toolsModule(ctx, t.module)
	if err != nil {
		return "", err
	}
	directory, err := toolsDirectory(ctx, source)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return "", fmt.Errorf("tools directory (%s sets another): %w", ToolsVariable, err)
	}
	unlock, err := gobuild.Lock(ctx, filepath.Join(directory, ".lock"), w)
	if err != nil {
		return "", err
	}
	defer unlock()
	path := filepath.Join(directory, t.name)
	if t.check(ctx, path) == nil {
		return path, nil
	}
	return path, buildTool(ctx, source, t, path, w)
}

// buildTool builds one tool and moves it to path in one step, so that an interrupted build leaves
// no incomplete file there.
func buildTool(ctx context.Context, source string, t tool, path string, w io.Writer) error {
	flags, err := versionFlags(ctx, source, t.module)
	if err != nil {
		return err
	}
	partial := path + ".partial"
	defer os.Remove(partial)
	command := func(args ...string) *exec.Cmd {
		cmd := gobuild.Command(ctx, source, append(args, t.pkg)...)
		if t.tags != "" {
			cmd.Env = append(cmd.Env, "CGO_ENABLED=1")
		}
		return cmd
	}
	build := []string{"build", "-v"}
	p, started := gobuild.NewProgress(w, t.name), time.Now()
	if t.test {
		build = []string{"test", "-c", "-vet=off"}
	} else if err := p.Expect(command("list", "-deps", "-trimpath", "-tags", t.tags, "-f", "{{if .Stale}}{{.ImportPath}}{{end}}")); err != nil {
		return err
	}
	cmd := command(append(build, "-trimpath", "-buildvcs=false", "-tags", t.tags, "-ldflags", flags, "-o", partial)...)
	cmd.Stdout, cmd.Stderr = p, p
	fmt.Fprintf(w, "tools: building %s, %d of %d tools\n", t.name, t.place, t.of)
	stop := p.Report()
	err = cmd.Run()
	stop()
	if err != nil && t.needs != "" {
		err = fmt.Errorf("%w (it needs the Debian packages %s)", err, t.needs)
	}
	if err != nil {
		return fmt.Errorf("build %s in %s: %w\n%s", t.pkg, source, err, process.Tail(p.Messages()))
	}
	if err := t.check(ctx, partial); err != nil {
		return fmt.Errorf("the built %s is not usable: %w", t.name, err)
	}
	if err := os.Rename(partial, path); err != nil {
		return err
	}
	fmt.Fprintf(w, "tools: built %s in %s\n", path, time.Since(started).Round(time.Second))
	return nil
}

// toolsModule returns the absolute directory of a module of tools.
func toolsModule(ctx context.Context, module string) (string, error) {
	output, err := gobuild.Command(ctx, "", "list", "-m", "-f", "{{.Dir}}", "rockpool.dev").Output()
	if err != nil {
		return "", fmt.Errorf("find the module rockpool.dev, to build tools (needs the go command "+
			"and a working directory in the checkout): %w", err)
	}
	source := filepath.Join(strings.TrimSpace(string(output)), module)
	if _, err := os.Stat(filepath.Join(source, "go.mod")); err != nil {
		return "", fmt.Errorf("module of tools: %w", err)
	}
	return source, nil
}

// toolsDirectory returns the cache directory for these sources, this compiler and this platform.
func toolsDirectory(ctx context.Context, source string) (string, error) {
	base := os.Getenv(ToolsVariable)
	if base != "" {
		return filepath.Abs(base)
	}
	cache, err := gobuild.Cache()
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return "", err
		}
		hash.Write(content)
	}
	platform, err := gobuild.Platform(ctx, source)
	if err != nil {
		return "", err
	}
	hash.Write(platform)
	return filepath.Join(cache, hex.EncodeToString(hash.Sum(nil))[:16]), nil
}

// versionFlags returns linker flags. They give Kubernetes programs their version; other programs
// know their own.
func versionFlags(ctx context.Context, source, module string) (string, error) {
	if module != kubernetesModule && module != suiteModule {
		return "-s -w", nil
	}
	output, err := gobuild.Command(ctx, source, "list", "-m", "-json", versionModule).Output()
	if err != nil {
		return "", fmt.Errorf("version of %s in %s: %w", versionModule, source, err)
	}
	var kubernetes struct{ Version string }
	if err := json.Unmarshal(output, &kubernetes); err != nil {
		return "", fmt.Errorf("version of %s: %w", versionModule, err)
	}
	major, rest, _ := strings.Cut(strings.TrimPrefix(kubernetes.Version, "v"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	const variable = " -X k8s.io/component-base/version."
	return "-s -w" + variable + "gitVersion=" + kubernetes.Version +
		variable + "gitMajor=" + major + variable + "gitMinor=" + minor, nil
}
