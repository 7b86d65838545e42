package zoo

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"rockpool.dev/tests/bed/node"
)

// patience bounds each wait for a program, and lessPatience for one that has already failed. A
// program that passes needs neither.
const (
	patience     = 2 * time.Minute
	lessPatience = 15 * time.Second
)

// Stages are the names of the stages of the story, in order.
var Stages = []string{"online", "cut", "program restarted", "sidecar restarted", "changed in the cloud", "back"}

// A Result is how the story went for a program.
type Result struct {
	Program
	Installed
	// Failures are the failed stages, by name. A program that has failed takes part in the rest of
	// the story.
	Failures map[string]error
	// Logs are the last lines of its container and its sidecar, if a stage failed.
	Logs string
}

// Run tells the story to the programs that Install has installed, and writes its progress with
// logf. The error is that of the story itself: see Result for the programs.
func Run(ctx context.Context, bed Bed, logf func(format string, args ...any)) ([]*Result, error) {
	have, err := installed(node.Directory())
	if err != nil {
		return nil, err
	}
	s := &story{bed: bed, logf: logf}
	if err := bed.CreateNamespace(ctx, namespace); err != nil {
		return nil, err
	}
	if err := bed.define(ctx); err != nil {
		return nil, err
	}
	if err := bed.set(ctx, before); err != nil {
		return nil, err
	}
	for _, p := range Table {
		i, found := have[p.Name]
		if !found {
			continue
		}
		result := &Result{Program: p, Installed: i, Failures: map[string]error{}}
		s.results = append(s.results, result)
		if i.Skipped != "" {
			continue
		}
		if err := bed.deploy(ctx, p, i); err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
		s.running = append(s.running, &running{Program: p, bed: bed, result: result})
	}
	defer bed.Node.Link.Restore()
	return s.results, s.tell(ctx)
}

type story struct {
	bed     Bed
	logf    func(format string, args ...any)
	results []*Result
	running []*running
}

// tell goes through the stages.
func (s *story) tell(ctx context.Context) error {
	s.stage(ctx, "online", func(ctx context.Context, r *running) error {
		if err := r.until(ctx, r.find); err != nil {
			return err
		}
		return r.ask(ctx, before)
	})
	s.bed.Node.Link.Cut()
	s.stage(ctx, "cut", func(ctx context.Context, r *running) error { return r.ask(ctx, before) })
	s.stage(ctx, "program restarted", func(ctx context.Context, r *running) error { return r.restart(ctx, "app") })
	s.stage(ctx, "sidecar restarted", func(ctx context.Context, r *running) error {
		if err := r.restart(ctx, sidecar); err != nil {
			return err
		}
		return r.restart(ctx, "app")
	})
	if err := s.bed.set(ctx, after); err != nil {
		return err
	}
	s.stage(ctx, "changed in the cloud", func(ctx context.Context, r *running) error { return r.ask(ctx, before) })
	s.bed.Node.Link.Restore()
	s.stage(ctx, "back", func(ctx context.Context, r *running) error { return r.ask(ctx, after) })
	return context.Cause(ctx)
}

// stage has all running programs go through a stage at once, and waits for them.
func (s *story) stage(ctx context.Context, name string, live func(context.Context, *running) error) {
	began := time.Now()
	var all sync.WaitGroup
	var failed []string
	var mu sync.Mutex
	for _, r := range s.running {
		all.Go(func() {
			err := live(ctx, r)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				return
			}
			failed = append(failed, r.Name)
			r.result.Failures[name] = err
			if r.pod != nil {
				r.result.Logs += fmt.Sprintf("--- %s of %s\n%s--- its sidecar\n%s", name, r.Name, r.tail("app"), r.tail(sidecar))
			}
		})
	}
	all.Wait()
	s.logf("zoo: %s: %d programs, %s, failed: [%s]", name, len(s.running), time.Since(began).Round(time.Second), strings.Join(failed, " "))
}

// restart kills a container and asks the program when the kubelet has started it again.
func (r *running) restart(ctx context.Context, container string) error {
	if r.pod == nil {
		return fmt.Errorf("%s is not running", r.Name)
	}
	if err := r.kill(ctx, container); err != nil {
		return err
	}
	return r.ask(ctx, before)
}

// ask waits until the program shows a value, from now on. It must not have ended by itself.
func (r *running) ask(ctx context.Context, value string) error {
	if r.pod == nil {
		return fmt.Errorf("%s is not running", r.Name)
	}
	q := question{value: value, after: time.Now()}
	if err := r.until(ctx, func(ctx context.Context) error { return r.shows(ctx, r, q) }); err != nil {
		return err
	}
	return r.alive()
}

// until calls ask until it succeeds. The error has the last error of ask.
func (r *running) until(ctx context.Context, ask func(context.Context) error) error {
	limit := patience
	if len(r.result.Failures) > 0 {
		limit = lessPatience
	}
	var last error
	err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, limit, true, func(ctx context.Context) (bool, error) {
		last = ask(ctx)
		return last == nil, nil
	})
	if err != nil && last != nil {
		return fmt.Errorf("%w: %w", err, last)
	}
	return err
}
