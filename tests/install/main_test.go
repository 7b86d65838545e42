// Package install applies manifests/ to the API server of an empty cluster, as an admin does, and
// runs the injector with the rights that they give it: what the API server calls is the Service
// of the manifests, by the certificate that the injector has made.
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
	// patience bounds each wait. It is never waited for when all is well.
	patience = 60 * time.Second
)

// plane is shared by all tests.
var (
	plane   *cluster.ControlPlane
	applied string // what the first apply has said
	changes string // what a second one would change
	binary  string // rockpool-injector
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
	if changes, err = kubectl(ctx, "diff", "-k", manifests); err != nil { // also if there are any
		return 1, err
	}
	return m.Run(), nil
}

// kubectl runs kubectl as the cluster's admin, and returns all that it says.
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
		t.Fatalf("%s: %v: %v", what, err, last)
	}
}
