package pod

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"rockpool.dev/tests/bed/internal/sandbox"
)

// An ExecResult is the output and the exit code of a command in a container.
type ExecResult struct {
	Stdout, Stderr string
	// ExitCode as in a shell: 128 plus the signal number if a signal ended the command.
	ExitCode int
}

// ExecOptions are the command of ExecStream and its streams; each may be nil.
type ExecOptions struct {
	Argv           []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Exec runs a command in a running container, as its user and with its environment. It returns an
// error if the command did not run, or if ctx ended it. A command that fails has an exit code.
func (p *Runner) Exec(ctx context.Context, name string, argv ...string) (ExecResult, error) {
	var stdout, stderr bytes.Buffer
	code, err := p.ExecStream(ctx, name, ExecOptions{Argv: argv, Stdout: &stdout, Stderr: &stderr})
	return ExecResult{Stdout: stdout.String(), Stderr: stderr.String(), ExitCode: code}, err
}

// ExecStream is Exec with streams, for commands that read input or run for long. When ctx ends, the
// command is killed.
func (p *Runner) ExecStream(ctx context.Context, name string, options ExecOptions) (exitCode int, err error) {
	p.mu.Lock()
	c, err := p.find(name)
	if err != nil {
		p.mu.Unlock()
		return 0, err
	}
	key, process := c.key, c.process
	p.mu.Unlock()
	if key == "" {
		return 0, fmt.Errorf("exec in container %s: it is not running", name)
	}
	process.Argv = options.Argv
	code, err := p.exec(ctx, key, process, options)
	if err != nil {
		return code, fmt.Errorf("exec %q in container %s: %w", options.Argv, name, err)
	}
	return code, nil
}

func (p *Runner) exec(ctx context.Context, join string, process sandbox.Process, options ExecOptions) (int, error) {
	var copying sync.WaitGroup
	stdin, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	if options.Stdin != nil {
		stdin.Close()
		reader, writer, err := os.Pipe()
		if err != nil {
			return 0, err
		}
		stdin = reader
		// Nobody waits for this goroutine: it ends with its source, which may outlive the command.
		go func() {
			defer writer.Close()
			_, _ = io.Copy(writer, options.Stdin)
		}()
	}
	defer stdin.Close()
	var outputs, readers []*os.File
	closeOutputs := func() {
		for _, output := range outputs {
			output.Close()
		}
	}
	for _, destination := range []io.Writer{options.Stdout, options.Stderr} {
		if destination == nil {
			destination = io.Discard
		}
		reader, writer, err := os.Pipe()
		if err != nil {
			closeOutputs()
			return 0, err
		}
		outputs, readers = append(outputs, writer), append(readers, reader)
		copying.Go(func() {
			defer reader.Close()
			_, _ = io.Copy(destination, reader)
		})
	}
	key := p.processKey("exec")
	_, exited, err := p.sandbox.start(sandbox.Start{Key: key, Join: join, Process: process}, stdin, outputs[0], outputs[1])
	closeOutputs()
	if err != nil {
		copying.Wait()
		return 0, err
	}
	var exit sandbox.Exit
	select {
	case exit = <-exited:
	case <-ctx.Done():
		killed := p.sandbox.signal(key, syscall.SIGKILL)
		<-exited
		for _, reader := range readers {
			reader.Close() // a process that the command has started may hold the other end
		}
		copying.Wait()
		return 0, errors.Join(context.Cause(ctx), killed)
	}
	copying.Wait()
	return exitCodeOf(exit), nil
}

func exitCodeOf(exit sandbox.Exit) int {
	if exit.Signal != 0 {
		return 128 + int(exit.Signal)
	}
	return exit.Code
}

// processKey returns a new key for a process of the pod.
func (p *Runner) processKey(kind string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.processes++
	return fmt.Sprintf("%s-%d", kind, p.processes)
}
