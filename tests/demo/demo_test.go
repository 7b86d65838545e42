package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"rockpool.dev/tests/bed/cluster"
)

func TestTheStoryGoesAsItIsToldAndItsQueriesWork(t *testing.T) {
	output := tell(t, options{})
	queriesWork(t, output)
	if strings.Contains(output, "%!") {
		t.Error("a format is wrong")
	}
}

func TestTheStoryIsToldInAnExistingCluster(t *testing.T) {
	plane, err := cluster.Start(t.Context(), cluster.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := plane.Stop(); err != nil {
			t.Error(err)
		}
	}()
	ctx, stop := context.WithCancel(t.Context())
	var controllers sync.WaitGroup
	controllers.Go(func() { fillNamespaces(ctx, t, plane) })
	defer controllers.Wait()
	defer stop()
	output := tell(t, options{kubeconfig: plane.Kubeconfig()})
	queriesWork(t, output)
}

// fillNamespaces does what the controllers of a cluster do for a new namespace.
func fillNamespaces(ctx context.Context, t *testing.T, plane *cluster.ControlPlane) {
	namespaces, err := plane.Client().CoreV1().Namespaces().Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Error(err)
		return
	}
	defer namespaces.Stop()
	for event := range namespaces.ResultChan() {
		if namespace, ok := event.Object.(*corev1.Namespace); ok && event.Type == watch.Added {
			if err := plane.CreateNamespace(ctx, namespace.Name); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	}
}

// tell runs the demo and returns what it prints.
func tell(t *testing.T, o options) string {
	var out bytes.Buffer
	o.directory, o.out = filepath.Join(t.TempDir(), "node"), &out
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	if err := run(ctx, o); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	t.Log(out.String())
	return out.String()
}

// queriesWork pastes what the demo has printed behind a $ into a shell, after its end.
func queriesWork(t *testing.T, output string) {
	commands := regexp.MustCompile(`(?m)^  \$ (.*)$`).FindAllStringSubmatch(output, -1)
	if len(commands) < 5 {
		t.Fatalf("the demo printed %d commands", len(commands))
	}
	for _, c := range commands {
		out, err := exec.Command("bash", "-c", c[1]).CombinedOutput()
		if err != nil || len(bytes.TrimSpace(out)) == 0 {
			t.Errorf("%s: %v, output %q", c[1], err, out)
		}
		if strings.Contains(c[1], "v_object") {
			for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
				if regexp.MustCompile(`│\s+│`).MatchString(line) && strings.Contains(line, "greeting") {
					t.Errorf("a row is blank: %s", line)
				}
			}
			if n := strings.Count(string(out), " greeting "); n != 1 {
				t.Errorf("greeting stands in %d rows, want 1:\n%s", n, out)
			}
		}
	}
}

func TestTheDemoEmptiesNoDirectoryOfSomebodyElse(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "thesis.tex")
	if err := os.WriteFile(file, []byte("years of work"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := &demo{options: options{directory: root}}
	if err := d.emptyDisk(); err == nil {
		t.Error("the directory was emptied")
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}
