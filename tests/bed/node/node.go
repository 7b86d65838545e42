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

// startTimeout bounds each step of a start. A step takes seconds.
const startTimeout = 2 * time.Minute

// A Node is containerd and a kubelet, registered with a control plane.
type Node struct {
	// Link is the link from the kubelet and from pods to the API server.
	Link *link.Link

	plane       *cluster.ControlPlane
	directory   string
	snapshotter string
	containerd  *process.Process
	kubelet     *process.Process
}

// ControlPlaneOptions are options for a control plane with a node. The API server calls webhooks at
// the pods' own addresses, because Service addresses do not work.
func ControlPlaneOptions() cluster.Options {
	return cluster.Options{ServerNames: []string{publicIPv6}, APIServerArgs: []string{
		"--enable-admission-plugins=NodeRestriction",
		"--enable-aggregator-routing=true",
		"--kubelet-preferred-address-types=InternalIP", // no DNS server knows the node's name
	}}
}

// Start starts the controllers and a node of the plane, with the images of the archives. It returns
// when the node is ready for pods. It works only in a process that Isolate has started.
func Start(ctx context.Context, plane *cluster.ControlPlane, tools cluster.NodeTools, archives ...string) (n *Node, err error) {
	directory := Directory()
	if directory == "" {
		return nil, errors.New("a node needs its own namespaces: see Isolate")
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
	if HasIPv6() {
		if err := n.Link.Listen(ctx, PublicAddressIPv6); err != nil {
			return n, err
		}
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

// configure writes the configuration files, and links the programs into one directory.
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
	for _, directory := range []string{"cni", "cni6"} {
		if err := os.MkdirAll(n.file(directory), 0o755); err != nil {
			return err
		}
	}
	return errors.Join(
		os.WriteFile(n.file("containerd.toml"), []byte(containerdConfig(n.directory, n.snapshotter)), 0o644),
		os.WriteFile(n.file("cni", "pods.conflist"), []byte(networkConfig("pods", "10.244.0.0/24", "0.0.0.0/0")), 0o644),
		os.WriteFile(n.file("cni6", "pods.conflist"), []byte(networkConfig("pods6", "fd00:10:244::/112", "::/0")), 0o644),
		os.WriteFile(n.file("kubelet.json"), kubelet, 0o644),
		os.WriteFile(n.file("resolv.conf"), nil, 0o644), // there is no name server
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
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return n.containerd.WaitReady(ctx, func(ctx context.Context) error {
		_, err := n.Ctr(ctx, "version")
		return err
	})
}

// StopContainerd stops containerd. Containers continue: their shims do not need it.
func (n *Node) StopContainerd() { n.containerd.Stop(10 * time.Second) }

// StartKubelet starts the kubelet, also after StopKubelet, and returns when it serves. The kubelet
// registers the node when it reaches the API server.
func (n *Node) StartKubelet(ctx context.Context) (err error) {
	n.kubelet, err = n.start("kubelet", "--config="+n.file("kubelet.json"), "--kubeconfig="+n.file("kubelet.kubeconfig"),
		"--root-dir="+kubeletRoot, "--hostname-override="+Name, "--node-ip="+nodeIP)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return n.kubelet.WaitReady(ctx, func(ctx context.Context) error {
		return process.Healthy(ctx, "http://127.0.0.1:10248/healthz")
	})
}

// StopKubelet stops the kubelet. Containers continue.
func (n *Node) StopKubelet() { n.kubelet.Stop(10 * time.Second) }

// AwaitReady waits until the node is Ready and has no taints.
func (n *Node) AwaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
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

// Ctr runs ctr, containerd's client, in the containerd namespace k8s.io.
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

// Stop ends the kubelet, containerd and the Link. Containers continue, as on any node, and end with
// the namespaces.
func (n *Node) Stop() {
	n.StopKubelet()
	n.StopContainerd()
	if n.Link != nil {
		n.Link.Close()
	}
}
