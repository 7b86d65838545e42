// Package e2enode tests Rockpool on a real node, behind a link that the tests cut: a kubelet,
// containerd and runc run pods of every kind, and Rockpool is installed from manifests/ and its
// image. The tests need root and minutes, so they run only with `make test-node` and are skipped
// otherwise.
package e2enode

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/tests/bed/cluster"
	"rockpool.dev/tests/bed/node"
	"rockpool.dev/tests/zoo"
)

// imageVariable names the archive with the image of Rockpool. `make test-node` sets it. Without it,
// the tests are skipped.
const imageVariable = "ROCKPOOL_NODE_IMAGE"

var keep = flag.Bool("keep", false, "keep the node's directory, with all logs")

// testEnv is shared by all tests. Each test has its own namespace. Nil: see notRun.
var testEnv *environment

// notRun is the reason why the tests do not run, or nil.
var notRun error

func TestMain(m *testing.M) {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	code, err := run(ctx, stop, m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "tests/e2enode:", err)
		code = 1
	}
	os.Exit(code)
}

func run(ctx context.Context, stop func(), m *testing.M) (code int, err error) {
	if node.Directory() != "" {
		return inside(ctx, stop, m)
	}
	if os.Getenv(imageVariable) == "" {
		notRun = errors.New("the tests on a real node run only with `make test-node`")
	} else if notRun = node.Unable(); notRun != nil {
		fmt.Fprintf(os.Stderr, "\n****\n**** THE TESTS ON A REAL NODE DO NOT RUN HERE: %v\n****\n\n", notRun)
	}
	if notRun != nil {
		return m.Run(), nil
	}
	return outside(ctx)
}

// outside builds everything that needs a network, and then runs this program again in the node's
// namespaces.
func outside(ctx context.Context) (code int, err error) {
	if _, err := cluster.FindTools(ctx, os.Stderr); err != nil {
		return 1, err
	}
	if _, err := cluster.FindNodeTools(ctx, os.Stderr); err != nil {
		return 1, err
	}
	if _, err := cluster.FindMonitoringTools(ctx, os.Stderr); err != nil {
		return 1, err
	}
	if _, err := cluster.FindHelm(ctx, os.Stderr); err != nil {
		return 1, err
	}
	directory, err := os.MkdirTemp("", "rockpool-node-")
	if err != nil {
		return 1, err
	}
	defer func() {
		if *keep {
			fmt.Fprintln(os.Stderr, "tests/e2enode: kept", directory)
			return
		}
		err = errors.Join(err, os.RemoveAll(directory))
	}()
	if err := writeImages(ctx, directory, os.Getenv(imageVariable)); err != nil {
		return 1, err
	}
	if zooRuns() {
		if err := zoo.Install(ctx, directory, *zooAll, os.Stderr); err != nil {
			return 1, err
		}
	}
	return node.Isolate(directory)
}

// inside starts the cluster, installs Rockpool, and runs the tests.
func inside(ctx context.Context, stop func(), m *testing.M) (code int, err error) {
	testEnv = &environment{}
	defer func() { err = errors.Join(err, testEnv.stop()) }()
	began := time.Now()
	if err := testEnv.start(ctx); err != nil {
		return 1, err
	}
	fmt.Fprintf(os.Stderr, "tests/e2enode: the node is ready after %s\n", time.Since(began).Round(time.Second))
	if err := testEnv.install(ctx); err != nil {
		return 1, err
	}
	fmt.Fprintf(os.Stderr, "tests/e2enode: Rockpool is installed after %s\n", time.Since(began).Round(time.Second))
	stop() // from now on an interrupt ends this program, and with it everything in its namespaces
	return m.Run(), nil
}

// An environment is a cluster of one node, with Rockpool installed.
type environment struct {
	*cluster.ControlPlane
	node *node.Node
}

func (e *environment) start(ctx context.Context) error {
	tools, err := cluster.FindNodeTools(ctx, os.Stderr)
	if err != nil {
		return err
	}
	options := node.ControlPlaneOptions()
	options.Directory = filepath.Join(node.Directory(), "controlplane")
	if err := os.Mkdir(options.Directory, 0o755); err != nil {
		return err
	}
	if e.ControlPlane, err = cluster.Start(ctx, options); err != nil {
		return err
	}
	archives, err := filepath.Glob(filepath.Join(node.Directory(), "*.tar"))
	if err != nil {
		return err
	}
	e.node, err = node.Start(ctx, e.ControlPlane, tools, archives...)
	return err
}

func (e *environment) stop() error {
	if e.node != nil {
		e.node.Stop()
	}
	if e.ControlPlane != nil {
		return e.Stop()
	}
	return nil
}

// install installs Rockpool as the README says.
func (e *environment) install(ctx context.Context) error {
	for _, argv := range [][]string{
		{e.Tools().Kubectl, "apply", "-k", "testdata/install"},
		{e.Tools().Kubectl, "-n", "rockpool-system", "rollout", "status", "deployment/rockpool-injector", "--timeout=90s"},
	} {
		if _, err := e.command(ctx, argv...); err != nil {
			events, _ := e.command(ctx, e.Tools().Kubectl, "get", "events", "-A")
			return fmt.Errorf("%w\n%s", err, events)
		}
	}
	// It takes a moment until the API server calls the webhook.
	if err := e.CreateNamespace(ctx, "rockpool-check"); err != nil {
		return err
	}
	check := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "check", Annotations: map[string]string{"rockpool.dev/inject": "true"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: programsImage}}},
	}
	return poll(ctx, func(ctx context.Context) error {
		pod, err := e.Client().CoreV1().Pods("rockpool-check").Create(ctx, check, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil && len(pod.Spec.InitContainers) == 0 {
			err = errors.New("the API server does not call the webhook")
		}
		return err
	})
}

// command runs a program with the administrator's kubeconfig.
func (e *environment) command(ctx context.Context, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+e.Kubeconfig())
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%v: %w\n%s", argv, err, out)
	}
	return string(out), nil
}
