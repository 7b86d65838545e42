package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"

	"rockpool.dev/injector/inject"
)

// pollInterval is the time between two looks at a pod whose sidecar restarts.
const pollInterval = time.Second

// Pods is the part of the API that an upgrade uses.
type Pods interface {
	Get(ctx context.Context, namespace, name string) (*corev1.Pod, error)
	// Patch applies a strategic merge patch.
	Patch(ctx context.Context, namespace, name string, patch []byte) (*corev1.Pod, error)
}

// Upgrade gives the sidecars of running pods another image, an older one as well.
type Upgrade struct {
	Pods  Pods
	Image string
	// AtOnce is how many sidecars may be restarting at any time; at least 1.
	AtOnce int
	// Timeout is how long one sidecar may take until it serves again. Then it gets its old image
	// back, and the upgrade stops.
	Timeout time.Duration
	// Report is called with each step, by one goroutine at a time. Required.
	Report func(pod *Sidecar, step string)
	Clock  clock.Clock
}

// Run upgrades the sidecars that are outdated, and returns how many it has upgraded. Those with a
// problem come along: the new image may be the remedy. After an error it starts no further one, and
// lets those that have begun end. The error names the pods.
func (u *Upgrade) Run(ctx context.Context, sidecars []Sidecar) (int, error) {
	var (
		mu   sync.Mutex
		done int
		errs []error
		work = make(chan *Sidecar)
		all  sync.WaitGroup
	)
	failed := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(errs) > 0
	}
	report := func(s *Sidecar, step string) {
		mu.Lock()
		defer mu.Unlock()
		u.Report(s, step)
	}
	for range max(1, u.AtOnce) {
		all.Go(func() {
			for s := range work {
				if failed() || ctx.Err() != nil {
					continue
				}
				upgraded, err := u.one(ctx, s, report)
				mu.Lock()
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", s, err))
				} else if upgraded {
					done++
				}
				mu.Unlock()
			}
		})
	}
	for i := range sidecars {
		if sidecars[i].Outdated(u.Image) {
			work <- &sidecars[i]
		}
	}
	close(work)
	all.Wait()
	return done, errors.Join(append(errs, ctx.Err())...)
}

// one upgrades one sidecar. It reports false if the pod is gone.
func (u *Upgrade) one(ctx context.Context, s *Sidecar, report func(*Sidecar, string)) (bool, error) {
	err := u.restart(ctx, s, u.Image)
	if apierrors.IsNotFound(err) {
		report(s, "is gone")
		return false, nil
	}
	if err == nil {
		report(s, "runs "+u.Image)
		return true, nil
	}
	var late *lateError
	if !errors.As(err, &late) {
		return false, err
	}
	report(s, fmt.Sprintf("does not serve with %s (%s); putting %s back", u.Image, late.problem, s.Image))
	// Also when the command is interrupted: the pod must not be left without its sidecar.
	if late.same {
		return false, errors.Join(err, u.set(context.WithoutCancel(ctx), s, s.Image))
	}
	if back := u.restart(context.WithoutCancel(ctx), s, s.Image); back != nil {
		return false, errors.Join(err, fmt.Errorf("with the old image: %w", back))
	}
	return false, err
}

// lateError is the error of a sidecar that does not serve in time.
type lateError struct {
	after   time.Duration
	problem string
	same    bool // the container of before still runs
}

func (e *lateError) Error() string {
	return fmt.Sprintf("the sidecar does not serve after %s: %s", e.after, e.problem)
}

// restart sets the image and waits until the new container serves.
func (u *Upgrade) restart(ctx context.Context, s *Sidecar, image string) error {
	pod, err := u.Pods.Get(ctx, s.Namespace, s.Pod)
	if err != nil {
		return err
	}
	before, ok := look(pod)
	if !ok {
		return apierrors.NewNotFound(corev1.Resource("pods"), s.Pod) // it has completed
	}
	if before.Image == image && before.Problem == "" {
		return nil
	}
	if err := u.set(ctx, s, image); err != nil {
		return err
	}
	began := u.Clock.Now()
	for {
		pod, err := u.Pods.Get(ctx, s.Namespace, s.Pod)
		if err != nil {
			return err
		}
		now, ok := look(pod)
		if !ok {
			return apierrors.NewNotFound(corev1.Resource("pods"), s.Pod)
		}
		problem, same := now.Problem, now.ContainerID == before.ContainerID && now.Problem == ""
		if same {
			problem = "the kubelet has not restarted it; is its node offline?"
		}
		if problem == "" {
			return nil
		}
		if u.Clock.Since(began) >= u.Timeout {
			return &lateError{u.Timeout, problem, same}
		}
		select {
		case <-ctx.Done():
			return &lateError{u.Clock.Since(began), ctx.Err().Error(), same}
		case <-u.Clock.After(pollInterval):
		}
	}
}

// set sets the image in the pod's spec.
func (u *Upgrade) set(ctx context.Context, s *Sidecar, image string) error {
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{
		"initContainers": []map[string]string{{"name": inject.ContainerSidecar, "image": image}},
	}})
	if err == nil {
		_, err = u.Pods.Patch(ctx, s.Namespace, s.Pod, patch)
	}
	return err
}
