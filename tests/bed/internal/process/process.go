// Package process runs child processes that end with the process that started them.
package process

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// A Process is a child that ends with this process. Its output goes to a file.
type Process struct {
	name   string
	log    string
	cmd    *exec.Cmd
	exited chan struct{} // closed once the child has been waited for
}

// Start starts a child with its output appended to the file log.
//
// The kernel sends the parent-death signal when the *thread* that started the child ends
// (prctl(2), PR_SET_PDEATHSIG), so one goroutine keeps that thread until the child has ended.
func Start(name, log string, cmd *exec.Cmd) (*Process, error) {
	output, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer output.Close()
	cmd.Stdout, cmd.Stderr = output, output
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	p := &Process{name: name, log: log, cmd: cmd, exited: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.exited)
		err := cmd.Start()
		started <- err
		if err == nil {
			// The result is in cmd.ProcessState.
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// PID is the child's process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited is closed once the child has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Kill kills the child and returns when it has ended.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // fails if the child has ended
	<-p.exited
}

// Stop sends SIGTERM, and kills the child if it has not ended within grace. A nil Process has
// ended.
func (p *Process) Stop(grace time.Duration) {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails if the child has ended
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.exited:
		return
	case <-timer.C:
	}
	p.Kill()
}

// WaitReady polls ready until it succeeds. If the child or ctx ends first, the error has the last
// lines of the child's log.
func (p *Process) WaitReady(ctx context.Context, ready func(context.Context) error) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	last := errors.New("not polled yet")
	for {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := ready(attempt)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-p.exited:
			return fmt.Errorf("%s ended before it was ready: %s; end of its log:\n%s", p.name, p.cmd.ProcessState, p.Tail())
		case <-ctx.Done():
			return fmt.Errorf("%s not ready: %w (last: %v); end of its log:\n%s", p.name, context.Cause(ctx), last, p.Tail())
		case <-ticker.C:
		}
	}
}

// Healthy returns nil when a GET of url is answered with 200. It is for WaitReady.
func Healthy(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return nil
}

// Tail returns the end of the child's log.
func (p *Process) Tail() string {
	log, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return Tail(log)
}

// Tail returns the last lines of a log, short enough for an error.
func Tail(log []byte) string {
	const limit = 4096
	if len(log) > limit {
		log = append([]byte("..."), log[len(log)-limit:]...)
	}
	return strings.TrimRight(string(log), "\n")
}
