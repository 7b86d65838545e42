// Package edge puts Rockpool on the test bed, for the end-to-end tests and the demo: a control
// plane with Rockpool's injector registered from manifests/, and an edge node whose pods reach it
// over a link that can be broken.
//
//	kube-apiserver ──▶ rockpool-injector        both on the host
//	      ▲
//	      │ Link (cut, black hole, delay, restore)
//	┌─────┼───────────────────────────── pod ─┐
//	│  203.0.113.10:6443                       │
//	│     ▲                                    │
//	│  rockpool-sidecar 127.0.0.1:10268 ◀── app│
//	└──────────────────────────────────────────┘
//
// The parts are in tests/bed, which knows nothing of Rockpool.
package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"rockpool.dev/tests/bed/cluster"
	"rockpool.dev/tests/bed/link"
	"rockpool.dev/tests/bed/pod"
)

// SidecarImage is the image of injected containers.
const SidecarImage = "rockpool:dev"

// PublicAddress is the address (host:port) at which pods reach the API server, over their node's
// Link.
const PublicAddress = cluster.DefaultPublicAddress

// Addresses of an Edge with Options.IPv6, from the range for documentation (RFC 3849) and from
// unique local ones (RFC 4193).
const (
	publicIPv6      = "2001:db8::10"
	podIPv6         = "fd00:10:244::10"
	hostIPv6        = "2001:db8::20"
	serviceCIDRIPv6 = "fd00:10:96::/112"
)

// raceEnv removes the second that a program with the race detector sleeps before it exits. A pod
// starts and ends four such programs one after the other. The sleep is for races of goroutines that
// outlive main, and the sidecar waits for its goroutines.
var raceEnv = []string{"GORACE=atexit_sleep_ms=0"}

// informer is the program of the app container.
const informer = "informer"

// Options are the options of Start.
type Options struct {
	// Race builds Rockpool with the race detector.
	Race bool
	// Programs are directories of tests/programs to build in addition to the informer. Each is the
	// entrypoint of an image, NAME:dev, and is also at /NAME in shell:dev.
	Programs []string
	// Like is a running Edge with the same programs, which are then not built again.
	Like *Edge
	// IPv6 makes a cluster whose Services, pods and public address have IPv6 addresses only.
	IPv6 bool
	// Images are further images by name, such as one with a program that is not of this project.
	Images map[string]pod.Image
	// APIServerArgs are appended to the arguments of kube-apiserver and take precedence.
	APIServerArgs []string
	// Progress receives progress messages. Nil: standard error.
	Progress io.Writer
}

// Edge is a cluster with Rockpool installed.
type Edge struct {
	*cluster.ControlPlane
	existing *cluster.Existing // instead of ControlPlane, after Join
	// Public is the address (host:port) at which pods reach the API server: PublicAddress, if they
	// have IPv4.
	Public string

	directory string
	binaries  string // directory of the programs
	programs  []string
	root      string // of the checkout
	pods      pod.Options
	injector  *exec.Cmd
	exited    chan struct{}
	webhook   string // URL
	ca        []byte // of the webhook
	images    map[string]pod.Image
}

// Start builds Rockpool and the test programs, starts a control plane and the injector, and
// registers the injector.
func Start(ctx context.Context, opts Options) (e *Edge, err error) {
	if opts.Progress == nil {
		opts.Progress = os.Stderr
	}
	e = &Edge{Public: PublicAddress}
	plane := cluster.Options{Progress: opts.Progress, APIServerArgs: opts.APIServerArgs}
	if opts.IPv6 {
		e.Public, e.pods = net.JoinHostPort(publicIPv6, "6443"), pod.Options{PodIP: podIPv6, HostIP: hostIPv6}
		plane.ServiceCIDR, plane.ServerNames = serviceCIDRIPv6, []string{publicIPv6}
		plane.APIServerArgs = append(plane.APIServerArgs, "--advertise-address="+publicIPv6) // of the family of Services
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Stop())
		}
	}()
	if err := e.prepare(ctx, opts); err != nil {
		return e, err
	}
	if e.ControlPlane, err = cluster.Start(ctx, plane); err != nil {
		return e, err
	}
	e.makeImages(e.Tools(), opts)
	if err := e.StartInjector(ctx); err != nil {
		return e, err
	}
	return e, e.register(ctx)
}

// prepare makes the directory, and builds the programs into it.
func (e *Edge) prepare(ctx context.Context, opts Options) (err error) {
	if e.root, err = checkout(); err != nil {
		return err
	}
	if e.directory, err = os.MkdirTemp("", "rockpool-edge-"); err != nil {
		return err
	}
	if err := os.Chmod(e.directory, 0o755); err != nil { // for pods, which run as other users
		return err
	}
	e.binaries, e.programs = e.directory, opts.Programs
	if opts.Like != nil {
		e.binaries, e.programs = opts.Like.binaries, opts.Like.programs
		return nil
	}
	return e.build(ctx, opts)
}

// makeImages makes the images of pods.
func (e *Edge) makeImages(tools cluster.Tools, opts Options) {
	e.images = map[string]pod.Image{
		SidecarImage: {Files: map[string]string{"/rockpool-sidecar": e.bin("sidecar")}, UID: 65532, GID: 65532, Env: raceEnv},
		"shell:dev": {Entrypoint: []string{"/bin/sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"}, Files: map[string]string{
			"/kubectl": tools.Kubectl, "/client.py": filepath.Join(e.root, "tests/programs/python/client.py"),
		}, Env: raceEnv},
	}
	for _, name := range append(e.programs, informer) {
		path := "/" + name
		e.images[name+":dev"] = pod.Image{Entrypoint: []string{path}, Files: map[string]string{path: e.bin(name)}, Env: raceEnv}
		e.images["shell:dev"].Files[path] = e.bin(name)
	}
	maps.Copy(e.images, opts.Images)
}

// checkout returns the root of the checkout.
func checkout() (string, error) {
	directory, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(directory, "go.mod")); err == nil {
			return directory, nil
		}
		parent := filepath.Dir(directory)
		if parent == directory {
			return "", errors.New("no go.mod here or above: run this inside a checkout of Rockpool")
		}
		directory = parent
	}
}

// bin is the program of a package, by the package's name.
func (e *Edge) bin(name string) string { return filepath.Join(e.binaries, name) }

// build builds all programs at once, so that the linker uses all processors.
func (e *Edge) build(ctx context.Context, opts Options) error {
	fmt.Fprintln(opts.Progress, "building rockpool-sidecar, rockpool-injector and the test programs")
	args := []string{"build"} // the same flags as for the tests, so that packages are compiled once
	if opts.Race {
		args = append(args, "-race")
	}
	args = append(args, "-o", e.directory+"/", "./sidecar", "./injector")
	for _, name := range append(opts.Programs, informer) {
		args = append(args, "./tests/programs/"+name)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Stderr = e.root, opts.Progress
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// Namespace creates a namespace for an application: see the function Namespace.
func (e *Edge) Namespace(ctx context.Context, name string) error {
	return Namespace(ctx, e.plane(), name)
}

// Plane is a control plane: one of the test bed, or an existing one.
type Plane interface {
	CreateNamespace(ctx context.Context, name string) error
	Client() kubernetes.Interface
	Address() string
}

func (e *Edge) plane() Plane {
	if e.existing != nil {
		return e.existing
	}
	return e.ControlPlane
}

// Client returns the administrator's client.
func (e *Edge) Client() kubernetes.Interface { return e.plane().Client() }

// Namespace creates a namespace whose default service account may read ConfigMaps, Secrets,
// Services and Events, and write ConfigMaps.
func Namespace(ctx context.Context, plane Plane, name string) error {
	if err := plane.CreateNamespace(ctx, name); err != nil {
		return err
	}
	role := &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "app"},
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"configmaps", "secrets", "services", "events"}, Verbs: []string{"get", "list", "watch"}},
			{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"create", "update", "patch", "delete"}},
		},
	}
	if _, err := plane.Client().RbacV1().Roles(name).Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return err
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "app"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "app"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "default", Namespace: name}},
	}
	_, err := plane.Client().RbacV1().RoleBindings(name).Create(ctx, binding, metav1.CreateOptions{})
	return err
}

// Pod returns a pod that opts in, with an informer and a shell.
func Pod(namespace, name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Annotations: map[string]string{"rockpool.dev/inject": "true"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{
			{Name: "app", Image: informer + ":dev"},
			{Name: "shell", Image: "shell:dev", Env: []corev1.EnvVar{{Name: "HOME", Value: "/tmp"}}},
		}},
	}
}

// Node is an edge node. Its disk stays when a pod ends.
type Node struct {
	// Root is the directory that stands for the node's file system.
	Root string
	// Link is the link from pods of this node to the API server.
	Link *link.Link
	// Links are further links by the address (host:port) at which pods of this node reach them.
	Links map[string]*link.Link
	// Images are further images of this node by name. They replace those of the cluster.
	Images map[string]pod.Image
	// LateProjections starts pods with empty projected volumes: see pod.Options.
	LateProjections bool

	edge *Edge
	log  func(string, ...any)
}

// NewNode returns a node whose disk is the directory root. log may be nil.
func (e *Edge) NewNode(root string, log func(string, ...any)) (*Node, error) {
	l, err := link.New(e.plane().Address())
	if err != nil {
		return nil, err
	}
	return &Node{Root: root, Link: l, Links: map[string]*link.Link{}, edge: e, log: log}, nil
}

// Close closes the node's link.
func (n *Node) Close() { n.Link.Close() }

// Create creates a pod and runs it as the API server returns it.
func (n *Node) Create(ctx context.Context, object *corev1.Pod) (*pod.Runner, error) {
	if n.edge.existing != nil {
		var err error
		if object, err = n.edge.injectHere(ctx, object); err != nil {
			return nil, err
		}
	}
	created, err := n.edge.Client().CoreV1().Pods(object.Namespace).Create(ctx, object, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	return n.Run(ctx, created)
}

// Run runs a pod that the API server has returned.
func (n *Node) Run(ctx context.Context, object *corev1.Pod) (*pod.Runner, error) {
	links := map[string]*link.Link{n.edge.Public: n.Link}
	maps.Copy(links, n.Links)
	images := maps.Clone(n.edge.images)
	maps.Copy(images, n.Images)
	return pod.Run(ctx, n.edge.Client(), object, pod.Options{
		Images: images, HostRoot: n.Root, Links: links, Log: n.log, LateProjections: n.LateProjections,
		PodIP: n.edge.pods.PodIP, HostIP: n.edge.pods.HostIP,
	})
}

// Stop ends everything.
func (e *Edge) Stop() error {
	e.StopInjector()
	var err error
	if e.ControlPlane != nil {
		err = e.ControlPlane.Stop()
	}
	if e.directory != "" {
		err = errors.Join(err, os.RemoveAll(e.directory))
	}
	return err
}

// StopInjector stops the injector, as if none of its replicas were running.
func (e *Edge) StopInjector() {
	if e.injector == nil {
		return
	}
	_ = e.injector.Process.Signal(syscall.SIGTERM) // fails if it has ended
	<-e.exited
	e.injector = nil
}
