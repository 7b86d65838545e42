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

// Output reads the output of a container, each line once.
type Output struct {
	runner    *pod.Runner
	container string
	offset    int // bytes that have been read
}

// NewOutput returns an Output at the first line.
func NewOutput(runner *pod.Runner, container string) *Output {
	return &Output{runner: runner, container: container}
}

// Skip skips all lines so far.
func (o *Output) Skip() error {
	text, err := o.runner.Logs(o.container)
	o.offset = len(text)
	return err
}

// Await waits for a line that contains all words.
func (o *Output) Await(ctx context.Context, words ...string) (found string, err error) {
	err = poll(ctx, func() (bool, error) {
		text, err := o.runner.Logs(o.container)
		if err != nil || len(text) < o.offset {
			return false, err
		}
		for line := range strings.Lines(text[o.offset:]) {
			if !strings.HasSuffix(line, "\n") {
				return false, nil // the line is incomplete
			}
			o.offset += len(line)
			if hasAll(line, words) {
				found = strings.TrimSpace(line)
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return "", fmt.Errorf("wait for a line with %q in the output of %s: %w", words, o.container, err)
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

// poll calls f until it returns true or an error, or ctx ends.
func poll(ctx context.Context, f func() (bool, error)) error {
	return wait.PollUntilContextCancel(ctx, 20*time.Millisecond, true, func(context.Context) (bool, error) { return f() })
}

// Database returns the path of the cache of the only pod on the node.
func (n *Node) Database() (string, error) {
	found, err := filepath.Glob(filepath.Join(n.Root, "var/lib/rockpool/*/*/*/0/rockpool.db"))
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("%d databases on the node, want 1: %v", len(found), found)
	}
	if err != nil {
		return "", err
	}
	return found[0], nil
}

// SQL queries the cache with the sqlite3 shell, as a user would.
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

// AwaitRows waits until a table, with an optional condition, has rows. Recording is off the request
// path, so an answer is on the disk a moment after the client has it.
func (n *Node) AwaitRows(ctx context.Context, from string) error {
	err := poll(ctx, func() (bool, error) {
		got, err := n.SQL(ctx, "SELECT count(*) > 0 FROM "+from)
		return got == "1", err
	})
	if err != nil {
		return fmt.Errorf("wait for rows in %s: %w", from, err)
	}
	return nil
}

// AwaitLink waits until the last recorded state of the link is state. It makes a program of the
// pod send a request each second: a sidecar that nobody asks does not look at its link.
func (n *Node) AwaitLink(ctx context.Context, runner *pod.Runner, state string) error {
	asked := time.Now()
	err := poll(ctx, func() (bool, error) {
		if time.Since(asked) > time.Second {
			asked = time.Now()
			// Offline the request fails.
			if _, err := runner.Exec(ctx, "shell", "/kubectl", "get", "--raw", "/livez"); err != nil {
				return false, err
			}
		}
		got, err := n.SQL(ctx, "SELECT state FROM link ORDER BY id DESC LIMIT 1")
		return got == state, err
	})
	if err != nil {
		return fmt.Errorf("wait for the link to be %s: %w", state, err)
	}
	return nil
}
