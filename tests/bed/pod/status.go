package pod

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// WaitRunning waits until every sidecar and every container has started, or has ended for good. It
// fails at once when that can no longer happen. The error has the state of each container.
func (p *Runner) WaitRunning(ctx context.Context) error {
	err := p.await(ctx, func() (bool, error) {
		if p.failure != nil {
			return false, p.failure
		}
		if p.phase == corev1.PodPending {
			return false, nil
		}
		for _, c := range p.containers {
			if !c.status.Started && c.status.State != Terminated {
				return false, nil
			}
		}
		return true, nil
	})
	return p.explain("wait for the pod to run", err)
}

// WaitRestarted waits until a container runs and has been restarted at least count times.
func (p *Runner) WaitRestarted(ctx context.Context, name string, count int) error {
	err := p.await(ctx, func() (bool, error) {
		c, err := p.find(name)
		if err != nil {
			return false, err
		}
		if c.status.Reason == "CreateContainerError" {
			return false, errors.New(c.status.Message)
		}
		return c.status.Started && c.status.RestartCount >= count, nil
	})
	return p.explain("wait for container "+name, err)
}

// WaitDone waits until the pod has ended without Stop, and returns Succeeded or Failed.
func (p *Runner) WaitDone(ctx context.Context) (corev1.PodPhase, error) {
	var phase corev1.PodPhase
	err := p.await(ctx, func() (bool, error) {
		phase = p.phase
		return phase == corev1.PodSucceeded || phase == corev1.PodFailed, nil
	})
	return phase, p.explain("wait for the end of the pod", err)
}

// WaitLog waits until the output of a container contains text.
func (p *Runner) WaitLog(ctx context.Context, name, text string) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		log, err := p.Logs(name)
		if err != nil || strings.Contains(log, text) {
			return err
		}
		select {
		case <-ctx.Done():
			return p.explain(fmt.Sprintf("wait for %q in the output of %s", text, name), context.Cause(ctx))
		case <-ticker.C:
		}
	}
}

// explain adds the state of each container to an error.
func (p *Runner) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var lines []string
	for _, c := range p.containers {
		s := c.status
		lines = append(lines, fmt.Sprintf("container %s: %s %s, %d restarts, last exit code %d; %s", s.Name, s.State, s.Reason, s.RestartCount, s.ExitCode, p.logTail(c)))
	}
	return fmt.Errorf("%s: %w\n%s", doing, err, strings.Join(lines, "\n"))
}

// Status returns the state of one container.
func (p *Runner) Status(name string) (ContainerStatus, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, err := p.find(name)
	if err != nil {
		return ContainerStatus{}, err
	}
	return c.status, nil
}

// Statuses returns the states of all containers, init containers first.
func (p *Runner) Statuses() []ContainerStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	var statuses []ContainerStatus
	for _, c := range p.containers {
		statuses = append(statuses, c.status)
	}
	return statuses
}

// Logs returns all output of a container to stdout and stderr, across restarts.
func (p *Runner) Logs(name string) (string, error) { return p.LogsFrom(name, 0) }

// LogsFrom is Logs without its first bytes.
func (p *Runner) LogsFrom(name string, offset int64) (string, error) {
	p.mu.Lock()
	c, err := p.find(name)
	p.mu.Unlock()
	if err != nil {
		return "", err
	}
	file, err := os.Open(c.log)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil // not started yet
	}
	if err != nil {
		return "", err
	}
	defer file.Close()
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		return "", err
	}
	content, err := io.ReadAll(file)
	return string(content), err
}

// PID returns the process id of a running container's first process in the namespace of the caller,
// for use with /proc.
func (p *Runner) PID(name string) (int, error) {
	p.mu.Lock()
	c, err := p.find(name)
	var inner int
	if err == nil {
		inner = c.pid
	}
	p.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if inner == 0 {
		return 0, fmt.Errorf("container %s is not running", name)
	}
	files, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		return 0, err
	}
	parent, inside := strconv.Itoa(p.sandbox.process.PID()), strconv.Itoa(inner)
	for _, file := range files {
		// NSpid has the id in each namespace, the outermost first (proc_pid_status(5)).
		fields := statusFields(file)
		ids := strings.Fields(fields["NSpid"])
		if len(ids) >= 2 && strings.TrimSpace(fields["PPid"]) == parent && ids[1] == inside {
			return strconv.Atoi(ids[0])
		}
	}
	return 0, fmt.Errorf("container %s: no process has id %d in the pod's namespace", name, inner)
}

func statusFields(path string) map[string]string {
	fields := map[string]string{}
	file, err := os.Open(path)
	if err != nil {
		return fields // the process has ended
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		fields[name] = value
	}
	return fields
}
