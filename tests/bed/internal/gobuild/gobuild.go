// Package gobuild has what builds of programs for tests have in common: the go command, a lock that
// lets several processes share a build, progress lines, and the cache directory.
package gobuild

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// DirectoryVariable names the directory for built programs, instead of "rockpool-tools" below
// os.UserCacheDir.
const DirectoryVariable = "BED_TOOLS_DIR"

// Cache is the directory below which built programs are kept by default.
func Cache() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("tools directory: %w (set %s)", err, DirectoryVariable)
	}
	return filepath.Join(cache, "rockpool-tools"), nil
}

// Command returns a go command without the go settings of the tests.
func Command(ctx context.Context, directory string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = directory
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	return cmd
}

// Platform describes the compiler and the platform that it builds for.
func Platform(ctx context.Context, directory string) ([]byte, error) {
	output, err := Command(ctx, directory, "env", "GOVERSION", "GOOS", "GOARCH").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	return output, nil
}

// Lock takes an exclusive lock, which the kernel releases when the process ends.
func Lock(ctx context.Context, path string, w io.Writer) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for said := false; ; {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			file.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !said {
			fmt.Fprintf(w, "tools: waiting for another process that builds them\n")
			said = true
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("wait for another process that builds tools: %w", context.Cause(ctx))
		case <-ticker.C:
		}
	}
}
