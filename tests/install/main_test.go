// Package install applies manifests/ to the API server of an empty cluster, as an administrator
// does, and runs the injector with the permissions from the manifests. The API server calls the
// Service of the manifests, and the injector creates the certificate.
package install

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"rockpool.dev/tests/bed/cluster"
)

const (
	manifests = "../../manifests"
	system    = "rockpool-system"
	// patience bounds each wait. A test that passes does not wait that long.
	patience = 60 * time.Second
)

// All tests share these.
var (
	plane   *cluster.ControlPlane
	applied string // output of the first apply
	changes string // changes that a second apply would make
	binary  string // path of rockpool-injector
)

func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	code, err := run(ctx, m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "tests/install:", err)
		code = 1
	}
	os.Exit(code)
}

func run(ctx context.Context, m *testing.M) (code int, err error) {
	directory, err := os.MkdirTemp("", "rockpool-install-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(directory)
	binary = filepath.Join(directory, "rockpool-injector")
	if out, err := exec.CommandContext(ctx, "go", "build", "-race", "-o", binary, "rockpool.dev/injector").CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build the injector: %w\n%s", err, out)
	}
	if plane, err = cluster.Start(ctx, cluster.Options{}); err != nil {
		return 1, err
	}
	defer func() {
		if stopErr := plane.Stop(); err == nil {
			err = stopErr
		}
	}()
	if applied, err = kubectl(ctx, "apply", "-k", manifests); err != nil {
		return 1, err
	}
	if changes, err = kubectl(ctx, "diff", "-k", manifests); err != nil { // also if there are changes
		return 1, err
	}
	return m.Run(), nil
}

// kubectl runs kubectl as an administrator and returns its output.
func kubectl(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, plane.Tools().Kubectl, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+plane.Kubeconfig())
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// until waits for a condition.
func until(t *testing.T, what string, f func() error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		last = f()
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("timed out waiting for: %s: %v: %v", what, err, last)
	}
}
