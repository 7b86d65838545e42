package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"rockpool.dev/injector/inject"
)

// pod is an injected pod that runs, with the changes.
func pod(name, image string, changes ...func(*corev1.Pod)) corev1.Pod {
	p := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, Annotations: map[string]string{inject.AnnotationStatus: `{"version":"v1"}`},
		},
		Spec: corev1.PodSpec{
			NodeName: "edge-1", InitContainers: []corev1.Container{{Name: inject.ContainerPrepare, Image: image}, {Name: inject.ContainerSidecar, Image: image}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, InitContainerStatuses: []corev1.ContainerStatus{{
			Name: inject.ContainerSidecar, ContainerID: "c0", Started: ptr.To(true), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
		}}},
	}
	for _, change := range changes {
		change(&p)
	}
	return p
}

func sidecarStatus(p *corev1.Pod) *corev1.ContainerStatus { return &p.Status.InitContainerStatuses[0] }

func TestLook(t *testing.T) {
	running := Sidecar{Namespace: "shop", Pod: "web", Node: "edge-1", Image: "rockpool:v1", Injector: "v1", ContainerID: "c0"}
	changed := func(change func(*Sidecar)) []Sidecar {
		s := running
		change(&s)
		return []Sidecar{s}
	}
	for name, test := range map[string]struct {
		change func(*corev1.Pod)
		want   []Sidecar
	}{
		"one that runs": {func(*corev1.Pod) {}, []Sidecar{running}},
		"a pod that was not injected is left out":     {func(p *corev1.Pod) { p.Annotations = nil }, nil},
		"a pod that has lost the sidecar is left out": {func(p *corev1.Pod) { p.Spec.InitContainers = nil }, nil},
		"a completed pod is left out":                 {func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, nil},
		"a failed pod is left out":                    {func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, nil},
		"a pod that is being deleted is left out":     {func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} }, nil},
		"one whose status is damaged":                 {func(p *corev1.Pod) { p.Annotations[inject.AnnotationStatus] = "x" }, changed(func(s *Sidecar) { s.Injector = "" })},
		"a pod that chooses its image":                {func(p *corev1.Pod) { p.Annotations[inject.AnnotationImage] = "mine:v1" }, changed(func(s *Sidecar) { s.Pinned = true })},
		"one that has not started":                    {func(p *corev1.Pod) { p.Status.InitContainerStatuses = nil }, changed(func(s *Sidecar) { s.Problem, s.ContainerID = "not started", "" })},
		"one that waits for its image": {func(p *corev1.Pod) {
			sidecarStatus(p).State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}
		}, changed(func(s *Sidecar) { s.Problem = "ImagePullBackOff" })},
		"one that has ended": {func(p *corev1.Pod) {
			sidecarStatus(p).State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137}}
			sidecarStatus(p).RestartCount = 3
		}, changed(func(s *Sidecar) { s.Problem, s.Restarts = "ended with exit code 137", 3 })},
		"one that is starting": {func(p *corev1.Pod) { sidecarStatus(p).Started = ptr.To(false) }, changed(func(s *Sidecar) { s.Problem = "starting since 0001-01-01T00:00:00Z" })},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, Look([]corev1.Pod{pod("web", "rockpool:v1", test.change)})); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestSummarize(t *testing.T) {
	sidecars := []Sidecar{
		{Image: "rockpool:v1", Injector: "v1"}, {Image: "rockpool:v1", Injector: "v1", Problem: "x"}, {Image: "rockpool:v2", Injector: "v1"},
		{Image: "mine:v1", Injector: "v2", Pinned: true},
	}
	want := []Group{
		{Image: "rockpool:v1", Injector: "v1", Pods: 2, Outdated: 2, Unhealthy: 1},
		{Image: "mine:v1", Injector: "v2", Pods: 1}, {Image: "rockpool:v2", Injector: "v1", Pods: 1},
	}
	if diff := cmp.Diff(want, Summarize(sidecars, "rockpool:v2")); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if groups := Summarize(sidecars, ""); groups[0].Outdated != 0 {
		t.Errorf("outdated although no image is wanted: %+v", groups)
	}
}

// kubelets are pods whose sidecars restart when their image changes.
type kubelets struct {
	mu         sync.Mutex
	pods       map[string]*corev1.Pod
	restarting int
	most       int
	broken     string // an image that does not start
	offline    bool
	patches    []string
}

func (k *kubelets) Get(_ context.Context, _, name string) (*corev1.Pod, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.pods[name]
	if p == nil {
		return nil, apierrors.NewNotFound(corev1.Resource("pods"), name)
	}
	seen := p.DeepCopy()
	// The next look sees it further on.
	if c := sidecarStatus(p); c.State.Running == nil && p.Spec.InitContainers[1].Image != k.broken {
		c.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
		c.ContainerID += "+"
		k.restarting--
	}
	return seen, nil
}

func (k *kubelets) Patch(_ context.Context, _, name string, patch []byte) (*corev1.Pod, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var given corev1.Pod
	if err := json.Unmarshal(patch, &given); err != nil || len(given.Spec.InitContainers) != 1 || given.Spec.InitContainers[0].Name != inject.ContainerSidecar {
		return nil, fmt.Errorf("patch %s: %w", patch, err)
	}
	p := k.pods[name]
	image := given.Spec.InitContainers[0].Image
	k.patches = append(k.patches, name+" "+image)
	p.Spec.InitContainers[1].Image = image
	if k.offline {
		return p, nil
	}
	if c := sidecarStatus(p); c.State.Running != nil {
		c.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull"}}
		k.restarting++
		k.most = max(k.most, k.restarting)
	}
	return p, nil
}

// upgrade runs an upgrade of n pods to an image, with a clock that never stands still.
func (k *kubelets) upgrade(t *testing.T, ctx context.Context, n, atOnce int, image string) (int, []string, error) {
	t.Helper()
	k.pods = map[string]*corev1.Pod{}
	var listed []corev1.Pod
	for i := range n {
		p := pod(fmt.Sprintf("web-%d", i), "rockpool:v1")
		k.pods[p.Name] = &p
		listed = append(listed, p)
	}
	fake := clocktesting.NewFakeClock(time.Now())
	ended := make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() {
		for {
			select {
			case <-ended:
				return
			case <-time.After(100 * time.Microsecond):
				fake.Step(pollInterval)
			}
		}
	})
	var steps []string
	u := Upgrade{
		Pods: k, Image: image, AtOnce: atOnce, Timeout: time.Minute, Clock: fake,
		Report: func(s *Sidecar, step string) { steps = append(steps, s.String()+" "+step) },
	}
	done, err := u.Run(ctx, Look(listed))
	close(ended)
	ticking.Wait()
	slices.Sort(steps)
	return done, steps, err
}

func TestAllSidecarsAreUpgradedAFewAtATime(t *testing.T) {
	for _, atOnce := range []int{1, 3} {
		k := &kubelets{}
		done, steps, err := k.upgrade(t, t.Context(), 10, atOnce, "rockpool:v2")
		if done != 10 || err != nil || len(steps) != 10 || steps[0] != "shop/web-0 runs rockpool:v2" {
			t.Errorf("%d upgraded, %v, %q", done, err, steps)
		}
		if k.most > atOnce {
			t.Errorf("%d restarted at once, want %d", k.most, atOnce)
		}
		for name, p := range k.pods {
			if p.Spec.InitContainers[0].Image != "rockpool:v1" || p.Spec.InitContainers[1].Image != "rockpool:v2" {
				t.Errorf("%s: %+v", name, p.Spec.InitContainers)
			}
		}
	}
}

func TestAnImageThatDoesNotStartIsTakenBackAndStopsTheUpgrade(t *testing.T) {
	k := &kubelets{broken: "rockpool:bad"}
	done, steps, err := k.upgrade(t, t.Context(), 5, 1, "rockpool:bad")
	if done != 0 || err == nil || !strings.Contains(err.Error(), "shop/web-0: the sidecar does not serve after 1m0s: ErrImagePull") {
		t.Errorf("%d upgraded, %v", done, err)
	}
	want := []string{"shop/web-0 does not serve with rockpool:bad (ErrImagePull); putting rockpool:v1 back"}
	if diff := cmp.Diff(want, steps); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"web-0 rockpool:bad", "web-0 rockpool:v1"}, k.patches); diff != "" {
		t.Errorf("patches (-want +got):\n%s", diff)
	}
	if p := k.pods["web-0"]; p.Spec.InitContainers[1].Image != "rockpool:v1" || sidecarStatus(p).State.Running == nil {
		t.Errorf("the pod is left with %s, %+v", p.Spec.InitContainers[1].Image, sidecarStatus(p).State)
	}
}

func TestANodeThatIsOfflineIsNamed(t *testing.T) {
	k := &kubelets{offline: true}
	_, _, err := k.upgrade(t, t.Context(), 1, 1, "rockpool:v2")
	if err == nil || !strings.Contains(err.Error(), "is its node offline?") || strings.Count(err.Error(), "does not serve") != 1 {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"web-0 rockpool:v2", "web-0 rockpool:v1"}, k.patches); diff != "" {
		t.Errorf("patches (-want +got):\n%s", diff)
	}
}

func TestAnInterruptedUpgradeLeavesNoPodWithoutItsSidecar(t *testing.T) {
	k := &kubelets{broken: "rockpool:bad"}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := k.upgrade(t, ctx, 3, 3, "rockpool:v2")
	if !errors.Is(err, context.Canceled) || len(k.patches) != 0 {
		t.Errorf("%v, %q", err, k.patches)
	}
}

func TestPinnedAndUpgradedSidecarsStay(t *testing.T) {
	k := &kubelets{pods: map[string]*corev1.Pod{}}
	u := Upgrade{Pods: k, Image: "rockpool:v2", Timeout: time.Minute, Clock: clocktesting.NewFakeClock(time.Now()), Report: func(*Sidecar, string) {}}
	done, err := u.Run(t.Context(), []Sidecar{{Pod: "a", Image: "mine:v1", Pinned: true}, {Pod: "b", Image: "rockpool:v2"}, {Pod: "gone", Image: "rockpool:v1"}})
	if done != 0 || err != nil || len(k.patches) != 0 {
		t.Errorf("%d, %v, %q", done, err, k.patches)
	}
}
