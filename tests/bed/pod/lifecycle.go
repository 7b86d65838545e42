package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"rockpool.dev/tests/bed/internal/process"
)

// run runs the pod up to the end of its last container. It starts the containers one by one and
// waits for each: for an init container to complete, for a sidecar or another container to start.
// When all containers but sidecars have ended for good, it stops the sidecars.
func (p *Runner) run() {
	for _, c := range p.containers {
		p.running.Go(func() { p.supervise(c) })
		err := p.await(p.ctx, func() (bool, error) {
			if p.failure != nil {
				return false, p.failure
			}
			if !c.init || c.sidecar {
				// A kubelet also starts them one by one and waits for hooks. A container that has
				// ended counts as started.
				return c.status.Started || c.status.State == Terminated || c.status.RestartCount > 0 && !c.sidecar, nil
			}
			if c.status.State == Terminated && c.status.ExitCode != 0 {
				return false, fmt.Errorf("init container %s ended with %d: %s", c.spec.Name, c.status.ExitCode, p.logTail(c))
			}
			return c.status.State == Terminated, nil
		})
		if err != nil {
			p.finish(err)
			return
		}
	}
	p.change(func() { p.phase = corev1.PodRunning })
	err := p.await(p.ctx, func() (bool, error) {
		for _, c := range p.containers {
			if !c.init && c.status.State != Terminated {
				return false, nil
			}
		}
		return true, nil
	})
	p.finish(err)
}

// finish stops the sidecars and sets the final phase.
func (p *Runner) finish(err error) {
	if p.ctx.Err() != nil {
		return // Stop ends the sidecars
	}
	p.stopSidecars()
	p.change(func() {
		p.phase = corev1.PodSucceeded
		for _, c := range p.containers {
			if !c.init && c.status.ExitCode != 0 {
				p.phase = corev1.PodFailed
			}
		}
		if err != nil {
			p.phase = corev1.PodFailed
			if p.failure == nil {
				p.failure = err
			}
		}
	})
}

// terminate ends all containers in the order of a pod's deletion.
func (p *Runner) terminate() {
	p.change(func() {
		for _, c := range p.containers {
			// Sidecars run until stopSidecars.
			c.stopping = c.stopping || !c.sidecar
		}
	})
	var ending sync.WaitGroup
	for _, c := range p.containers {
		if !c.sidecar {
			ending.Go(func() { p.end(c) })
		}
	}
	ending.Wait()
	p.stopSidecars()
}

func (p *Runner) stopSidecars() {
	for _, c := range slices.Backward(p.containers) {
		if c.sidecar {
			p.change(func() { c.stopping = true })
			p.end(c)
		}
	}
}

// end ends the process of a container, if it runs: preStop, SIGTERM, and SIGKILL after the grace
// period.
func (p *Runner) end(c *container) {
	p.mu.Lock()
	key, exited := c.key, c.exited
	p.mu.Unlock()
	if key == "" {
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, p.options.GracePeriod)
	defer cancel()
	if hooks := c.spec.Lifecycle; hooks != nil && hooks.PreStop != nil {
		if err := p.hook(ctx, c, hooks.PreStop); err != nil {
			p.options.Log("container %s: preStop: %v", c.spec.Name, err)
		}
	}
	_ = p.sandbox.signal(key, syscall.SIGTERM) // fails only if the sandbox has ended, with the process
	select {
	case <-exited:
		return
	case <-ctx.Done():
	}
	_ = p.sandbox.signal(key, syscall.SIGKILL)
	<-exited
}

// hook runs a lifecycle hook of a running container.
func (p *Runner) hook(ctx context.Context, c *container, handler *corev1.LifecycleHandler) error {
	switch {
	case handler.Exec != nil:
		result, err := p.Exec(ctx, c.spec.Name, handler.Exec.Command...)
		if err == nil && result.ExitCode != 0 {
			err = fmt.Errorf("exit code %d: %s%s", result.ExitCode, result.Stdout, result.Stderr)
		}
		return err
	case handler.Sleep != nil:
		timer := time.NewTimer(time.Duration(handler.Sleep.Seconds) * time.Second)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		return nil
	}
	return errors.New("this kind of hook is not supported")
}

// KillContainer sends a signal to the first process of a container. The restart policy applies if
// the process ends.
func (p *Runner) KillContainer(name string, signal syscall.Signal) error {
	p.mu.Lock()
	c, err := p.find(name)
	if err != nil {
		p.mu.Unlock()
		return err
	}
	key := c.key
	p.mu.Unlock()
	if key == "" {
		return fmt.Errorf("container %s is not running", name)
	}
	return p.sandbox.signal(key, signal)
}

// RestartContainer ends a container as Stop does and starts it again at once, whatever the policy
// is. It returns when the container has started.
func (p *Runner) RestartContainer(ctx context.Context, name string) error {
	p.mu.Lock()
	c, err := p.find(name)
	if err != nil {
		p.mu.Unlock()
		return err
	}
	if c.status.State == Terminated || c.stopping {
		p.mu.Unlock()
		return fmt.Errorf("container %s has ended for good", name)
	}
	count := c.status.RestartCount
	if c.key != "" {
		count++
	}
	p.mu.Unlock()
	p.change(func() { c.restarting = true })
	p.end(c)
	return p.WaitRestarted(ctx, name, count)
}

// find returns a container by name. The caller holds the lock.
func (p *Runner) find(name string) (*container, error) {
	var names []string
	for _, c := range p.containers {
		if c.spec.Name == name {
			return c, nil
		}
		names = append(names, c.spec.Name)
	}
	return nil, fmt.Errorf("no container %q, there are %s", name, strings.Join(names, ", "))
}

// logTail returns the end of a container's output.
func (p *Runner) logTail(c *container) string {
	content, err := os.ReadFile(c.log)
	if err != nil {
		return "(no output)"
	}
	return process.Tail(content)
}
