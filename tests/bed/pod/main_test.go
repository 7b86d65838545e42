package pod

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"rockpool.dev/tests/bed/cluster"
)

// plane is the control plane that the tests of this package share; nil with -short.
var plane *cluster.ControlPlane

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if testing.Short() {
		return m.Run()
	}
	var err error
	plane, err = cluster.Start(context.Background(), cluster.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, "control plane:", err)
		return 1
	}
	defer plane.Stop()
	return m.Run()
}

// controlPlane returns the shared control plane. It skips the test where there is none.
func controlPlane(t *testing.T) *cluster.ControlPlane {
	t.Helper()
	if plane == nil {
		t.Skip("needs a control plane, not started with -short")
	}
	return plane
}

// createPod creates a pod in the namespace default and returns it as the API server has admitted
// it.
func createPod(t *testing.T, specification string) *corev1.Pod {
	t.Helper()
	c := controlPlane(t)
	pod := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(specification), pod); err != nil {
		t.Fatal(err)
	}
	pod.GenerateName = "pod-"
	created, err := c.Client().CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := c.Client().CoreV1().Pods("default").Delete(context.Background(), created.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
		if err != nil {
			t.Error(err)
		}
	})
	return created
}

func runPod(t *testing.T, specification string, options Options) *Runner {
	t.Helper()
	options.Log = t.Logf
	p, err := Run(t.Context(), controlPlane(t).Client(), createPod(t, specification), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// output runs a shell command in a container and returns its output.
func output(t *testing.T, p *Runner, container, command string) string {
	t.Helper()
	result, err := p.Exec(limited(t), container, "sh", "-c", command)
	if err != nil {
		t.Fatal(err)
	}
	if result.ExitCode != 0 {
		t.Errorf("%s: exit code %d: %s", command, result.ExitCode, result.Stderr)
	}
	return strings.TrimSpace(result.Stdout)
}

func wantRunning(t *testing.T, p *Runner) {
	t.Helper()
	if err := p.WaitRunning(limited(t)); err != nil {
		t.Fatal(err)
	}
}
