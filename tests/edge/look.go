package edge

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"rockpool.dev/tests/bed/pod"
)

// Output reads what a container prints, line by line and each line once.
type Output struct {
	runner    *pod.Runner
	container string
	mark      int // bytes that were looked at
}

// NewOutput reads from the first line on.
func NewOutput(runner *pod.Runner, container string) *Output {
	return &Output{runner: runner, container: container}
}

// Skip leaves out what has been printed so far.
func (o *Output) Skip() error {
	text, err := o.runner.Logs(o.container)
	o.mark = len(text)
	return err
}

// Await waits for a line that has all of the words.
func (o *Output) Await(ctx context.Context, words ...string) (found string, err error) {
	err = poll(ctx, func() (bool, error) {
		text, err := o.runner.Logs(o.container)
		if err != nil || len(text) < o.mark {
			return false, err
		}
		for line := range strings.Lines(text[o.mark:]) {
			if !strings.HasSuffix(line, "\n") {
				return false, nil // the rest is to come
			}
			o.mark += len(line)
			if hasAll(line, words) {
				found = strings.TrimSpace(line)
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return "", fmt.Errorf("%s does not print a line with %q: %w", o.container, words, err)
	}
	return found, nil
}

func hasAll(line string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(line, w) {
			return false
		}
	}
	return true
}

// poll tries until f says true or an error, or ctx ends.
func poll(ctx context.Context, f func() (bool, error)) error {
	return wait.PollUntilContextCancel(ctx, 20*time.Millisecond, true, func(context.Context) (bool, error) { return f() })
}

// Database is the file in which the only pod on the node records.
func (n *Node) Database() (string, error) {
	found, err := filepath.Glob(filepath.Join(n.Root, "var/lib/rockpool/*/*/*/0/rockpool.db"))
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("%d databases on the node, want one: %v", len(found), found)
	}
	if err != nil {
		return "", err
	}
	return found[0], nil
}

// SQL asks the cache as a person would, with the sqlite3 shell.
func (n *Node) SQL(ctx context.Context, args ...string) (string, error) {
	path, err := n.Database()
	if err != nil {
		return "", err
	}
	last := len(args) - 1
	argv := append(append([]string{"-readonly"}, args[:last]...), path, args[last])
	out, err := exec.CommandContext(ctx, "sqlite3", argv...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("sqlite3 %s: %w: %s", args[last], err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// AwaitRows waits until a table, or a part of it, has rows: recording is off the
// request path, so what a client has seen is on the disk a moment later.
func (n *Node) AwaitRows(ctx context.Context, from string) error {
	err := poll(ctx, func() (bool, error) {
		got, err := n.SQL(ctx, "SELECT count(*) > 0 FROM "+from)
		return got == "1", err
	})
	if err != nil {
		return fmt.Errorf("no row appears in %s: %w", from, err)
	}
	return nil
}

// AwaitLink waits until the recorded history of the link ends in a state.
func (n *Node) AwaitLink(ctx context.Context, state string) error {
	err := poll(ctx, func() (bool, error) {
		got, err := n.SQL(ctx, "SELECT state FROM link ORDER BY id DESC LIMIT 1")
		return got == state, err
	})
	if err != nil {
		return fmt.Errorf("the link does not become %s: %w", state, err)
	}
	return nil
}
