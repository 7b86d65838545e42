// Package pod runs a pod on this machine as a kubelet would, from the object that the API server
// has admitted. It needs no container runtime: a container is a process in its own namespaces.
package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"rockpool.dev/tests/bed/internal/sandbox"
	"rockpool.dev/tests/bed/link"
)

// An Image stands for a container image. A container sees its files and, below /usr, /bin, /lib and
// so on, the host's programs and libraries.
type Image struct {
	// Entrypoint is the command of containers that have none.
	Entrypoint []string
	// Files are the paths of the host's files and directories by their paths in the container,
	// where they are read-only.
	Files map[string]string
	// Env is the image's environment, as NAME=value.
	Env []string
	// UID and GID are the user of containers for which the pod sets none.
	UID, GID int
}

// Options describe the node of a pod.
type Options struct {
	// Images by the name in a container's `image`. Other images are empty.
	Images map[string]Image
	// HostRoot is the directory that stands for the node's root in hostPath volumes: /var/lib/x is
	// HostRoot/var/lib/x. Empty: a directory that is removed with the pod.
	HostRoot string
	// Links by the host:port at which the pod reaches them, such as cluster.DefaultPublicAddress.
	// Every other address is unreachable. The runner adds each host to the pod's lo.
	Links map[string]*link.Link
	// NodeName is spec.nodeName of a pod that has none. Empty: "edge-node".
	NodeName string
	// LateProjections leaves projected volumes empty until RotateTokens, as if the kubelet could
	// not fetch their content.
	LateProjections bool
	// PodIP and HostIP. Empty: 10.244.0.10 and 192.0.2.10.
	PodIP, HostIP string
	// GracePeriod is the time between SIGTERM and SIGKILL. Zero: the pod's
	// terminationGracePeriodSeconds, but at most 5 s. Process 1 of a namespace ignores SIGTERM if
	// it has no handler, and tests should not wait long for that.
	GracePeriod time.Duration
	// RestartBackoff is the pause before the first restart of a container. It doubles with each
	// restart, up to 5 s. Zero: 200 ms.
	RestartBackoff time.Duration
	// Log receives a line for each action of the runner. Nil: no log.
	Log func(format string, args ...any)
}

// A Runner runs one pod, until Stop.
type Runner struct {
	pod       *corev1.Pod
	metadata  atomic.Pointer[metav1.ObjectMeta] // current labels and annotations
	options   Options
	client    kubernetes.Interface
	directory string // all files of the pod outside the host root
	sandbox   *sandboxClient
	unlink    []func() // remove the pod's listeners from their links
	env       serviceEnvironment
	volumes   map[string]volume
	projected map[string]*projection

	cancel  context.CancelFunc
	ctx     context.Context // of the supervisors; ends with Stop
	running sync.WaitGroup
	stop    sync.Once

	mu         sync.Mutex
	changed    chan struct{} // closed and replaced when a container changes
	containers []*container
	failure    error // why the pod cannot run
	phase      corev1.PodPhase
	processes  int
}

var warnOnce sync.Once

// Run starts a pod, as the API server has returned it, in its own namespaces on this machine. It
// returns when volumes, network and links are ready; containers start in the background (see
// WaitRunning). Everything ends with Stop, and with this process.
func Run(ctx context.Context, client kubernetes.Interface, pod *corev1.Pod, options Options) (*Runner, error) {
	if err := supported(pod); err != nil {
		return nil, fmt.Errorf("pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	if singleUser() {
		warnOnce.Do(func() {
			fmt.Fprintln(os.Stderr, "bed: not root: pods run in user namespaces with a single user")
		})
	}
	directory, err := os.MkdirTemp("", "bed-pod-")
	if err != nil {
		return nil, err
	}
	p := &Runner{
		pod: pod.DeepCopy(), options: options.withDefaults(pod, directory), client: client, directory: directory,
		volumes: map[string]volume{}, projected: map[string]*projection{},
		changed: make(chan struct{}), phase: corev1.PodPending,
	}
	p.metadata.Store(&p.pod.ObjectMeta)
	if p.pod.Spec.NodeName == "" {
		p.pod.Spec.NodeName = p.options.NodeName
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if err := p.prepare(ctx); err != nil {
		p.Stop()
		return nil, fmt.Errorf("pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	p.running.Go(p.run)
	return p, nil
}

// supported returns an error for a pod that would silently run in another way than it specifies.
func supported(pod *corev1.Pod) error {
	spec := &pod.Spec
	switch {
	case pod.UID == "":
		return errors.New("metadata.uid is empty: pass the pod as the API server has returned it")
	case spec.HostNetwork, spec.HostPID, spec.HostIPC:
		return errors.New("the host's namespaces are not supported")
	case spec.ShareProcessNamespace != nil && *spec.ShareProcessNamespace:
		return errors.New("spec.shareProcessNamespace is not supported")
	}
	for _, c := range spec.InitContainers {
		if c.StartupProbe != nil && c.StartupProbe.Exec == nil {
			return fmt.Errorf("container %s: startup probes other than exec are not supported", c.Name)
		}
	}
	return nil
}

func (o Options) withDefaults(pod *corev1.Pod, directory string) Options {
	if o.HostRoot == "" {
		o.HostRoot = filepath.Join(directory, "host")
	}
	if o.NodeName == "" {
		o.NodeName = "edge-node"
	}
	if o.PodIP == "" {
		o.PodIP = "10.244.0.10"
	}
	if o.HostIP == "" {
		o.HostIP = "192.0.2.10"
	}
	if o.GracePeriod == 0 {
		o.GracePeriod = 5 * time.Second
		if seconds := pod.Spec.TerminationGracePeriodSeconds; seconds != nil {
			o.GracePeriod = min(o.GracePeriod, time.Duration(*seconds)*time.Second)
		}
	}
	if o.RestartBackoff == 0 {
		o.RestartBackoff = 200 * time.Millisecond
	}
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	return o
}

// prepare sets up everything that the containers share.
func (p *Runner) prepare(ctx context.Context) error {
	for _, name := range []string{"root", "logs", "volumes"} {
		if err := os.MkdirAll(filepath.Join(p.directory, name), 0o755); err != nil {
			return err
		}
	}
	for i := range p.pod.Spec.InitContainers {
		p.addContainer(&p.pod.Spec.InitContainers[i], true)
	}
	for i := range p.pod.Spec.Containers {
		p.addContainer(&p.pod.Spec.Containers[i], false)
	}
	var err error
	if p.env, err = readServiceEnvironment(ctx, p.client); err != nil {
		return err
	}
	if p.sandbox, err = startSandbox(filepath.Join(p.directory, "sandbox.log")); err != nil {
		return err
	}
	if err := p.connect(ctx); err != nil {
		return fmt.Errorf("network: %w; the sandbox says: %s", err, p.sandbox.process.Tail())
	}
	for i := range p.pod.Spec.Volumes {
		v := &p.pod.Spec.Volumes[i]
		if err := p.makeVolume(ctx, v); err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	return nil
}

// connect sets up the pod's network: its addresses, and the listeners of links on them.
func (p *Runner) connect(ctx context.Context) error {
	addresses := []string{p.options.PodIP}
	for address := range p.options.Links {
		host, err := hostOf(address)
		if err != nil {
			return err
		}
		addresses = append(addresses, host)
	}
	setup := &sandbox.Setup{Hostname: hostname(p.pod), Addresses: unique(addresses)}
	if _, err := p.sandbox.call(ctx, sandbox.Request{Setup: setup}); err != nil {
		return err
	}
	for address, link := range p.options.Links {
		listener, err := p.sandbox.listen(ctx, address)
		if err != nil {
			return fmt.Errorf("link at %s: %w", address, err)
		}
		remove, err := link.AcceptFrom(listener)
		if err != nil {
			return fmt.Errorf("link at %s: %w", address, err)
		}
		p.unlink = append(p.unlink, remove)
	}
	return nil
}

// Stop ends the pod as a kubelet does: first the containers, then the sidecars in reverse order.
// Each gets preStop, SIGTERM, and SIGKILL after the grace period. Only the pod's files below
// HostRoot stay. It may be called more than once.
func (p *Runner) Stop() error {
	var err error
	p.stop.Do(func() {
		if p.sandbox != nil {
			p.terminate()
		}
		p.cancel()
		if p.sandbox != nil {
			p.sandbox.stop()
		}
		p.running.Wait()
		for _, remove := range p.unlink {
			remove()
		}
		err = os.RemoveAll(p.directory)
	})
	return err
}

// Kill ends everything at once, as a power loss of the node does: SIGKILL only, without hooks.
func (p *Runner) Kill() error {
	p.mu.Lock()
	for _, c := range p.containers {
		c.stopping = true
	}
	p.mu.Unlock()
	p.cancel()
	p.sandbox.process.Kill()
	return p.Stop()
}

// Pod returns the pod as it runs.
func (p *Runner) Pod() *corev1.Pod { return p.pod.DeepCopy() }
