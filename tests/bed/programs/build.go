package programs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"rockpool.dev/tests/bed/internal/gobuild"
	"rockpool.dev/tests/bed/internal/process"
)

// A Program is a program of another project, built from a Go module as it was published.
type Program struct {
	Name    string // of the executable
	Module  string
	Version string
	Sum     string // of the module, as in go.sum
	Package string // the main package, relative to the module
	Tags    string // build tags
	// Flags are further linker flags, such as those that give the program its version.
	Flags string
	// Files are written into a copy of the module before the build: a module does not have
	// everything that is in its repository.
	Files map[string]string
	// Commands are the arguments of go commands to run in the copy before the build.
	Commands [][]string
}

// Build returns the path of the executable, after building it if that has not been done before on
// this machine. It writes progress to w, since a build takes minutes. Several processes may call it
// at once: one builds, the others wait.
func (p Program) Build(ctx context.Context, w io.Writer) (path string, err error) {
	directory, err := p.directory(ctx)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return "", fmt.Errorf("tools directory (%s sets another): %w", gobuild.DirectoryVariable, err)
	}
	unlock, err := gobuild.Lock(ctx, filepath.Join(directory, ".lock"), w)
	if err != nil {
		return "", err
	}
	defer unlock()
	path = filepath.Join(directory, p.Name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return path, p.build(ctx, directory, path, w)
}

// directory is the cache directory for this program, this compiler and this platform.
func (p Program) directory(ctx context.Context) (string, error) {
	base := os.Getenv(gobuild.DirectoryVariable)
	if base == "" {
		var err error
		if base, err = gobuild.Cache(); err != nil {
			return "", err
		}
	}
	platform, err := gobuild.Platform(ctx, "")
	if err != nil {
		return "", err
	}
	recipe, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	hash := sha256.Sum256(append(recipe, platform...))
	return filepath.Abs(filepath.Join(base, "programs", p.Name+"-"+hex.EncodeToString(hash[:])[:16]))
}

// build builds the program in a copy of its module, so that the module's own go.mod chooses the
// versions of its libraries. It moves the executable to path in one step.
func (p Program) build(ctx context.Context, directory, path string, w io.Writer) error {
	source, err := os.MkdirTemp(directory, "source-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(source)
	started := time.Now()
	fmt.Fprintf(w, "tools: building %s from %s %s (takes minutes the first time)\n", p.Name, p.Module, p.Version)
	stop := gobuild.NewProgress(w, p.Name).Report()
	defer stop()
	if err := p.fetch(ctx, source); err != nil {
		return err
	}
	for _, args := range p.Commands {
		if err := run(ctx, source, args...); err != nil {
			return err
		}
	}
	partial := filepath.Join(source, ".partial")
	// -mod=mod lets go.sum miss the modules that Commands replace. The checksum database vouches
	// for those.
	err = run(ctx, source, "build", "-mod=mod", "-trimpath", "-buildvcs=false", "-tags", p.Tags,
		"-ldflags", strings.TrimSpace("-s -w "+p.Flags), "-o", partial, p.Package)
	if err != nil {
		return err
	}
	if err := os.Rename(partial, path); err != nil {
		return err
	}
	fmt.Fprintf(w, "tools: built %s in %s\n", path, time.Since(started).Round(time.Second))
	return nil
}

// fetch downloads the module, checks its sum, and copies it to a directory.
func (p Program) fetch(ctx context.Context, directory string) error {
	// It prints JSON also when it fails.
	output, err := gobuild.Command(ctx, directory, "mod", "download", "-json", p.Module+"@"+p.Version).Output()
	var got struct{ Dir, Sum, Error string }
	if json.Unmarshal(output, &got) != nil && err != nil {
		return fmt.Errorf("download %s %s: %w", p.Module, p.Version, err)
	}
	if got.Error != "" {
		return fmt.Errorf("download %s %s: %s", p.Module, p.Version, got.Error)
	}
	if got.Sum != p.Sum {
		return fmt.Errorf("%s %s has the sum %s, want %s", p.Module, p.Version, got.Sum, p.Sum)
	}
	if err := os.CopyFS(directory, os.DirFS(got.Dir)); err != nil {
		return err
	}
	for name, content := range p.Files {
		path := filepath.Join(directory, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func run(ctx context.Context, directory string, args ...string) error {
	cmd := gobuild.Command(ctx, directory, args...)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, process.Tail(bytes.TrimSpace(output)))
	}
	return nil
}
