package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"rockpool.dev/tests/bed/internal/sandbox"
)

// maxBackoff bounds the pause between restarts of a container.
const maxBackoff = 5 * time.Second

// States of a container, as in the API's ContainerState.
const (
	Waiting    = "Waiting"
	Running    = "Running"
	Terminated = "Terminated" // for good; a container to be restarted is Waiting
)

// A ContainerStatus is the state of a container at one moment.
type ContainerStatus struct {
	Name  string
	State string // Waiting, Running or Terminated
	// Started means that it runs, and that its postStart hook and startup probe, if any, have
	// succeeded.
	Started bool
	// Reason and Message explain why it waits, or how it ended.
	Reason, Message string
	RestartCount    int
	// ExitCode of its last run: 128 plus the signal number if a signal ended it.
	ExitCode int
}

// A container is one container of a running pod. The pod's mu guards the fields from status on.
type container struct {
	spec    *corev1.Container
	init    bool
	sidecar bool
	log     string

	status     ContainerStatus
	key        string          // of its process in the sandbox; empty: it does not run
	pid        int             // of its process, in the sandbox's namespace
	process    sandbox.Process // for commands that join it
	exited     chan struct{}   // closed when the process has ended
	stopping   bool            // do not start it again
	restarting bool            // start it again at once, whatever the policy is
}

func (p *Runner) addContainer(spec *corev1.Container, isInit bool) {
	p.containers = append(p.containers, &container{
		spec: spec, init: isInit,
		sidecar: isInit && spec.RestartPolicy != nil && *spec.RestartPolicy == corev1.ContainerRestartPolicyAlways,
		log:     filepath.Join(p.directory, "logs", spec.Name),
		status:  ContainerStatus{Name: spec.Name, State: Waiting, Reason: "PodInitializing"},
	})
}

// change calls f under the lock and wakes all waiters.
func (p *Runner) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

// await blocks until ok, which is called under the lock, returns true or an error, or ctx ends.
func (p *Runner) await(ctx context.Context, ok func() (bool, error)) error {
	for {
		p.mu.Lock()
		done, err := ok()
		changed := p.changed
		p.mu.Unlock()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

// supervise runs and restarts a container until its policy or Stop ends that.
func (p *Runner) supervise(c *container) {
	backoff := p.options.RestartBackoff
	for {
		p.mu.Lock()
		stopping := c.stopping
		p.mu.Unlock()
		if stopping {
			p.change(func() { c.status.State, c.status.Started = Terminated, false })
			return
		}
		err := p.runOnce(c)
		if err != nil {
			// A kubelet would retry for ever. For a test it is better to fail at once with the
			// reason.
			p.options.Log("container %s: %v", c.spec.Name, err)
			p.change(func() {
				c.status.State, c.status.Reason, c.status.Message = Waiting, "CreateContainerError", err.Error()
				p.failure = errors.Join(p.failure, fmt.Errorf("container %s: %w", c.spec.Name, err))
			})
			return
		}
		again := false
		p.change(func() {
			switch {
			case c.stopping:
			case c.restarting:
				again = true
			default:
				again = p.shouldRestart(c)
			}
			if !again {
				c.status.State = Terminated
				return
			}
			c.status.State, c.status.Reason = Waiting, "CrashLoopBackOff"
			c.status.RestartCount++
		})
		if !again {
			return
		}
		p.pause(c, backoff)
		backoff = min(2*backoff, maxBackoff)
		p.change(func() { c.restarting = false })
	}
}

// shouldRestart reports whether the policy restarts a container that has ended.
func (p *Runner) shouldRestart(c *container) bool {
	failed := c.status.ExitCode != 0
	switch {
	case c.sidecar:
		return true
	case p.pod.Spec.RestartPolicy == corev1.RestartPolicyNever:
		return false
	case p.pod.Spec.RestartPolicy == corev1.RestartPolicyOnFailure, c.init:
		return failed
	}
	return true
}

// pause waits before a restart. It returns early when the container is to stop or to restart at
// once.
func (p *Runner) pause(c *container, backoff time.Duration) {
	ctx, cancel := context.WithTimeout(p.ctx, backoff)
	defer cancel()
	_ = p.await(ctx, func() (bool, error) { return c.stopping || c.restarting, nil }) // the error is the timeout
}

// runOnce starts a container and waits for its end. It returns an error if the container cannot
// start.
func (p *Runner) runOnce(c *container) error {
	l, err := p.launchOf(p.ctx, c.spec)
	if err != nil {
		return err
	}
	// Any user may write, since the program may open /dev/stdout again as any user.
	output, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	defer output.Close()
	if err := os.Chmod(c.log, 0o666); err != nil {
		return err
	}
	stdin, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer stdin.Close()
	key := p.processKey(c.spec.Name)
	pid, exited, err := p.sandbox.start(sandbox.Start{Key: key, Container: &l.container, Process: l.process}, stdin, output, output)
	if err != nil {
		return err
	}
	p.options.Log("container %s: started", c.spec.Name)
	var stopping bool
	p.change(func() {
		c.key, c.pid, c.process, c.exited = key, pid, l.process, make(chan struct{})
		c.status.State, c.status.Reason, c.status.Message = Running, "", ""
		stopping = c.stopping
	})
	if stopping {
		err = errors.New("the pod is being stopped")
	} else {
		err = p.poststart(c)
	}
	if err != nil {
		p.options.Log("container %s: %v", c.spec.Name, err)
		_ = p.sandbox.signal(key, syscall.SIGKILL)
	} else {
		p.change(func() { c.status.Started = true })
	}
	exit := <-exited
	p.options.Log("container %s: ended with %d", c.spec.Name, exitCodeOf(exit))
	p.change(func() {
		c.key, c.pid = "", 0
		c.status.Started = false
		c.status.ExitCode = exitCodeOf(exit)
		switch {
		case err != nil:
			c.status.Reason, c.status.Message = "PostStartHookError", err.Error()
		case c.status.ExitCode == 0:
			c.status.Reason = "Completed"
		default:
			c.status.Reason = "Error"
		}
		close(c.exited)
	})
	return nil
}

// poststart runs the postStart hook and the startup probe: a container is started when both
// succeed.
func (p *Runner) poststart(c *container) error {
	if hooks := c.spec.Lifecycle; hooks != nil && hooks.PostStart != nil {
		if err := p.hook(p.ctx, c, hooks.PostStart); err != nil {
			return fmt.Errorf("postStart: %w", err)
		}
	}
	if c.spec.StartupProbe == nil || !c.sidecar {
		return nil // only sidecars have containers that wait for their startup probe
	}
	return p.startupProbe(c)
}

// startupProbe repeats an exec probe until it succeeds or has failed too often.
func (p *Runner) startupProbe(c *container) error {
	probe := c.spec.StartupProbe
	period := max(time.Duration(probe.PeriodSeconds)*time.Second, time.Second)
	timeout := max(time.Duration(probe.TimeoutSeconds)*time.Second, time.Second)
	wait := time.Duration(probe.InitialDelaySeconds) * time.Second
	for failures := int32(0); ; wait = period {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-p.ctx.Done():
			timer.Stop()
			return p.ctx.Err()
		}
		ctx, cancel := context.WithTimeout(p.ctx, timeout)
		result, err := p.Exec(ctx, c.spec.Name, probe.Exec.Command...)
		cancel()
		if err == nil && result.ExitCode == 0 {
			return nil
		}
		if failures++; failures >= max(probe.FailureThreshold, 1) {
			return fmt.Errorf("startup probe failed %d times: exit code %d, %v: %s%s", failures, result.ExitCode, err, result.Stdout, result.Stderr)
		}
	}
}
