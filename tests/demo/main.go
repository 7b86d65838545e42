// Command demo shows Rockpool's main job live: an unmodified in-cluster program runs in an injected
// pod, with a real kube-apiserver, while the link is cut, the program and the sidecar restart, and
// the link returns. It ends with an error if a step does not go as expected.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/rand"

	"rockpool.dev/tests/bed/pod"
	"rockpool.dev/tests/edge"
)

func main() {
	o := options{out: os.Stdout}
	flag.StringVar(&o.kubeconfig, "kubeconfig", "", "use the cluster of this `file`, in a namespace that is deleted afterwards, instead of a new API server")
	flag.StringVar(&o.directory, "directory", "dist/demo", "`path` of the directory that stands for the node's disk; it is emptied first, and stays")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: FAILED: %v\n", err)
		os.Exit(1)
	}
}

// patience is how long one step may take.
const patience = 30 * time.Second

type options struct {
	kubeconfig string // empty: a new API server
	directory  string // of the node's disk
	out        io.Writer
}

// demo is a cluster with an edge node and a pod.
type demo struct {
	*printer
	options   options
	namespace string
	cluster   *edge.Edge
	node      *edge.Node
	pod       *pod.Runner
	app       *edge.Output
}

func run(ctx context.Context, o options) (err error) {
	d := &demo{printer: &printer{out: o.out, start: time.Now()}, options: o, namespace: "shop"}
	d.intro()
	if err := d.setUp(ctx); err != nil {
		return errors.Join(err, d.tearDown())
	}
	defer func() { err = errors.Join(err, d.tearDown()) }()
	for _, step := range []func(context.Context) error{d.create, d.online, d.cut, d.restartApp, d.restartSidecar, d.back} {
		ctx, cancel := context.WithTimeout(ctx, 2*patience)
		err := step(ctx)
		cancel()
		if err != nil {
			d.logs()
			return err
		}
	}
	if err := d.pod.Stop(); err != nil {
		return err
	}
	return d.outro()
}

// setUp makes the cloud and the edge node.
func (d *demo) setUp(ctx context.Context) (err error) {
	o := edge.Options{Progress: d.out}
	if d.options.kubeconfig != "" {
		d.chapter("Set-up: the cluster of "+d.options.kubeconfig, "")
		d.namespace = "rockpool-demo-" + rand.String(5)
		if d.cluster, err = edge.Join(ctx, d.options.kubeconfig, o); err != nil {
			return err
		}
	} else {
		d.chapter("Set-up: the cloud", "")
		if d.cluster, err = edge.Start(ctx, o); err != nil {
			return err
		}
		d.say("A real kube-apiserver with etcd is running. Rockpool's admission webhook is installed.")
	}
	if err := d.emptyDisk(); err != nil {
		return err
	}
	if d.node, err = d.cluster.NewNode(d.options.directory, nil); err != nil {
		return err
	}
	if err := d.cluster.Namespace(ctx, d.namespace); err != nil {
		return err
	}
	d.say("The namespace %s has a ConfigMap, and a role that may read and write ConfigMaps.", d.namespace)
	return nil
}

// marker is a file of a directory that the demo may empty.
const marker = ".rockpool-demo"

func (d *demo) emptyDisk() error {
	root := d.options.directory
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if _, err := os.Stat(filepath.Join(root, marker)); err != nil && len(entries) > 0 {
		return fmt.Errorf("--directory: %s has files that are not the demo's; name an empty directory", root)
	}
	if err := os.RemoveAll(root); err != nil {
		return err
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, marker), nil, 0o644)
}

// tearDown ends everything but the node's disk.
func (d *demo) tearDown() error {
	var errs []error
	if d.pod != nil {
		errs = append(errs, d.pod.Stop())
	}
	if d.node != nil {
		d.node.Close()
	}
	if d.cluster == nil {
		return errors.Join(errs...)
	}
	if d.options.kubeconfig != "" && d.node != nil {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		errs = append(errs, d.cluster.DeleteNamespace(ctx, d.namespace))
	}
	return errors.Join(append(errs, d.cluster.Stop())...)
}
