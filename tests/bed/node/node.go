package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/tests/bed/cluster"
	"rockpool.dev/tests/bed/internal/process"
	"rockpool.dev/tests/bed/link"
)

// patience bounds what should take seconds.
const patience = 2 * time.Minute

// A Node is containerd and a kubelet, registered with a control plane.
type Node struct {
	// Link is the way from here to the API server, for the kubelet and for pods.
	Link *link.Link

	plane       *cluster.ControlPlane
	directory   string
	snapshotter string
	containerd  *process.Process
	kubelet     *process.Process
}

// ControlPlaneOptions are options for a control plane that has a node. The API server reaches
// webhooks at the pods' own addresses, since nothing makes Service addresses work.
func ControlPlaneOptions() cluster.Options {
	return cluster.Options{APIServerArgs: []string{
		"--enable-admission-plugins=NodeRestriction",
		"--enable-aggregator-routing=true",
		"--kubelet-preferred-address-types=InternalIP", // the node's name is known to nobody
	}}
}

// Start starts the controllers and a node of the plane, which has the images of the archives, and
// returns once it is ready for pods. It works where Directory is not empty only.
func Start(ctx context.Context, plane *cluster.ControlPlane, tools cluster.NodeTools, archives ...string) (n *Node, err error) {
	directory := Directory()
	if directory == "" {
		return nil, errors.New("a node needs namespaces made for it: see Isolate")
	}
	n = &Node{plane: plane, directory: directory, snapshotter: snapshotter(directory)}
	defer func() {
		if err != nil {
			n.Stop()
		}
	}()
	if n.Link, err = link.New(plane.Address()); err != nil {
		return n, err
	}
	if err := n.Link.Listen(ctx, cluster.DefaultPublicAddress); err != nil {
		return n, err
	}
	if err := n.configure(tools); err != nil {
		return n, err
	}
	if err := n.StartContainerd(ctx); err != nil {
		return n, err
	}
	for _, archive := range archives {
		if _, err := n.Ctr(ctx, "images", "import", "--snapshotter", n.snapshotter, archive); err != nil {
			return n, err
		}
	}
	if err := plane.StartControllers(tools); err != nil {
		return n, err
	}
	if err := n.StartKubelet(ctx); err != nil {
		return n, err
	}
	return n, n.AwaitReady(ctx)
}

// configure writes what the programs read, and puts all of them in one directory.
func (n *Node) configure(tools cluster.NodeTools) error {
	for name, path := range tools {
		if err := os.Symlink(path, n.file("bin", name)); err != nil {
			return err
		}
	}
	kubelet, err := kubeletConfig(n.directory, os.Getenv(groupVariable))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(n.file("cni"), 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(n.file("containerd.toml"), []byte(containerdConfig(n.directory, n.snapshotter)), 0o644),
		os.WriteFile(n.file("cni", "pods.conflist"), []byte(networkConfig()), 0o644),
		os.WriteFile(n.file("kubelet.json"), kubelet, 0o644),
		os.WriteFile(n.file("resolv.conf"), nil, 0o644), // no name server: there is nobody to ask
		os.WriteFile(n.file("ca.crt"), n.plane.CA(), 0o644),
		n.plane.WriteKubeconfig(n.file("kubelet.kubeconfig"), "https://"+cluster.DefaultPublicAddress, "system:node:"+Name, "system:nodes"),
	)
}

func (n *Node) file(name ...string) string {
	return filepath.Join(append([]string{n.directory}, name...)...)
}

func (n *Node) start(name string, args ...string) (*process.Process, error) {
	cmd := exec.Command(n.file("bin", name), args...)
	cmd.Env = append(os.Environ(), "PATH="+n.file("bin")+":"+os.Getenv("PATH"))
	return process.Start(name, n.file(name+".log"), cmd)
}

// StartContainerd starts containerd, also after StopContainerd.
func (n *Node) StartContainerd(ctx context.Context) (err error) {
	if n.containerd, err = n.start("containerd", "--config", n.file("containerd.toml")); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return n.containerd.WaitReady(ctx, func(ctx context.Context) error {
		_, err := n.Ctr(ctx, "version")
		return err
	})
}

// StopContainerd stops containerd. Containers go on: their shims do not need it.
func (n *Node) StopContainerd() { n.containerd.Stop(10 * time.Second) }

// StartKubelet starts the kubelet, also after StopKubelet. It is ready when it serves; where it can reach
// the API server it registers the node.
func (n *Node) StartKubelet(ctx context.Context) (err error) {
	n.kubelet, err = n.start("kubelet", "--config="+n.file("kubelet.json"), "--kubeconfig="+n.file("kubelet.kubeconfig"),
		"--root-dir="+kubeletRoot, "--hostname-override="+Name, "--node-ip="+nodeIP)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return n.kubelet.WaitReady(ctx, func(ctx context.Context) error {
		return process.Healthy(ctx, "http://127.0.0.1:10248/healthz")
	})
}

// StopKubelet stops the kubelet. Containers go on.
func (n *Node) StopKubelet() { n.kubelet.Stop(10 * time.Second) }

// AwaitReady waits until the API server knows the node as one that may have pods.
func (n *Node) AwaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return n.kubelet.WaitReady(ctx, func(ctx context.Context) error {
		node, err := n.plane.Client().CoreV1().Nodes().Get(ctx, Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue && len(node.Spec.Taints) == 0 {
				return nil
			}
		}
		return fmt.Errorf("conditions %+v, taints %+v", node.Status.Conditions, node.Spec.Taints)
	})
}

// Ctr runs containerd's own client in the namespace of Kubernetes.
func (n *Node) Ctr(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, n.file("bin", "ctr"), append([]string{"--address", containerdSocket, "--namespace", "k8s.io"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimSpace(string(out)), nil
}

// Stop ends the kubelet, containerd and the Link. Containers go on, as they do on any node, and end
// with the namespaces.
func (n *Node) Stop() {
	n.StopKubelet()
	n.StopContainerd()
	if n.Link != nil {
		n.Link.Close()
	}
}
