package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	Terminated = "Terminated" // for good; between restarts it is Waiting
)

// A ContainerStatus is what is known of a container at one moment.
type ContainerStatus struct {
	Name  string
	State string // Waiting, Running or Terminated
	// Started: it runs, and its postStart hook and startup probe, if any, have succeeded.
	Started bool
	// Reason and Message say why it waits, or how it ended.
	Reason, Message string
	RestartCount    int
	// ExitCode of its last end, 128 and the number of the signal if one ended it.
	ExitCode int
}

// A container is one container of a running pod. What is below the line is guarded by the pod's mu.
type container struct {
	spec    *corev1.Container
	init    bool
	sidecar bool
	log     string

	status     ContainerStatus
	key        string          // of its process in the sandbox; empty while there is none
	pid        int             // of its process, in the sandbox's namespace
	process    sandbox.Process // for commands that join it
	exited     chan struct{}   // closed when the process has ended
	stopping   bool            // not to be started again
	restarting bool            // to be started again at once, whatever the policy
}

func (p *Runner) addContainer(spec *corev1.Container, isInit bool) {
	p.containers = append(p.containers, &container{
		spec: spec, init: isInit,
		sidecar: isInit && spec.RestartPolicy != nil && *spec.RestartPolicy == corev1.ContainerRestartPolicyAlways,
		log:     filepath.Join(p.directory, "logs", spec.Name),
		status:  ContainerStatus{Name: spec.Name, State: Waiting, Reason: "PodInitializing"},
	})
}

// change changes something under the lock and wakes all who wait for it.
func (p *Runner) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

// await blocks until ok, called under the lock, says so or fails, or ctx ends.
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

// supervise runs a container again and again until its policy, or Stop, ends that.
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
			// A kubelet would try again for ever; a test is better served by the reason at once.
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
				again = p.wants(c)
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

// wants tells whether a container that has ended is to run again.
func (p *Runner) wants(c *container) bool {
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

// pause waits before a restart, unless there is a reason not to.
func (p *Runner) pause(c *container, backoff time.Duration) {
	ctx, cancel := context.WithTimeout(p.ctx, backoff)
	defer cancel()
	// Either end is a good one.
	_ = p.await(ctx, func() (bool, error) { return c.stopping || c.restarting, nil })
}

// runOnce starts a container and waits for its end. The error is for one that could not be started.
func (p *Runner) runOnce(c *container) error {
	l, err := p.launchOf(p.ctx, c.spec)
	if err != nil {
		return err
	}
	// Anybody may write, since the program may open /dev/stdout again as whatever user it has.
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
		_ = p.sandbox.signal(key, killSignal) // it may have ended by itself
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

// poststart runs what has to succeed before a container counts as started.
func (p *Runner) poststart(c *container) error {
	if hooks := c.spec.Lifecycle; hooks != nil && hooks.PostStart != nil {
		if err := p.hook(p.ctx, c, hooks.PostStart); err != nil {
			return fmt.Errorf("postStart: %w", err)
		}
	}
	if c.spec.StartupProbe == nil || !c.sidecar {
		return nil // of other containers nothing depends on it
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
