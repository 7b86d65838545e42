// Command demo shows Rockpool's main job live: an unmodified in-cluster program runs in an injected
// pod, with a real kube-apiserver, while the link is cut, the program and the sidecar restart, and
// the link returns. It ends with an error if a phase does not go as expected.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/tests/bed/pod"
	"rockpool.dev/tests/edge"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: FAILED: %v\n", err)
		os.Exit(1)
	}
}

const (
	namespace = "shop"
	patience  = 30 * time.Second
)

// demo is a cluster with an edge node and a pod.
type demo struct {
	*printer
	cluster *edge.Edge
	node    *edge.Node
	pod     *pod.Runner
	app     *edge.Output
}

func run(ctx context.Context) (err error) {
	d := &demo{printer: &printer{out: os.Stdout, start: time.Now()}}
	d.phase("Set-up")
	if d.cluster, err = edge.Start(ctx, edge.Options{Progress: d.out}); err != nil {
		return err
	}
	defer func() {
		if stopErr := d.cluster.Stop(); err == nil {
			err = stopErr
		}
	}()
	d.say("kube-apiserver and etcd are running, rockpool-injector is registered as an admission webhook")
	root, err := os.MkdirTemp("", "rockpool-node-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	if err := os.Chmod(root, 0o755); err != nil {
		return err
	}
	if d.node, err = d.cluster.NewNode(root, nil); err != nil {
		return err
	}
	defer d.node.Close()
	if err := d.cluster.Namespace(ctx, namespace); err != nil {
		return err
	}
	for _, phase := range []func(context.Context) error{d.create, d.online, d.cut, d.restartApp, d.restartSidecar, d.back} {
		ctx, cancel := context.WithTimeout(ctx, 2*patience)
		err := phase(ctx)
		cancel()
		if err != nil {
			d.logs()
			return err
		}
	}
	if err := d.pod.Stop(); err != nil {
		return err
	}
	d.phase("Done: every phase went as expected")
	return nil
}

// create creates the pod and shows what admission has added to it.
func (d *demo) create(ctx context.Context) (err error) {
	if err := d.greet(ctx, "hello"); err != nil {
		return err
	}
	d.say(`creating a pod with the annotation rockpool.dev/inject: "true"; its program is a client-go informer with InClusterConfig`)
	if d.pod, err = d.node.Create(ctx, edge.Pod(namespace, "web")); err != nil {
		return err
	}
	for _, c := range d.pod.Pod().Spec.InitContainers {
		d.say("admission added the container %s", c.Name)
	}
	for _, e := range d.pod.Pod().Spec.Containers[0].Env {
		if e.Name == "KUBERNETES_SERVICE_HOST" || e.Name == "KUBERNETES_SERVICE_PORT" {
			d.say("admission set %s=%s", e.Name, e.Value)
		}
	}
	d.app = edge.NewOutput(d.pod, "app")
	return d.pod.WaitRunning(ctx)
}

// greet changes the ConfigMap that the program reads, directly in the cloud.
func (d *demo) greet(ctx context.Context, value string) error {
	api := d.cluster.Client().CoreV1().ConfigMaps(namespace)
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "greeting"}, Data: map[string]string{"value": value}}
	_, err := api.Update(ctx, cm, metav1.UpdateOptions{})
	if err != nil {
		_, err = api.Create(ctx, cm, metav1.CreateOptions{})
	}
	if err == nil {
		d.say("in the cloud, the ConfigMap greeting now has the value %q", value)
	}
	return err
}

// sees waits until the program prints a line with the words, and shows it.
func (d *demo) sees(ctx context.Context, words ...string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	line, err := d.app.Await(ctx, words...)
	if err != nil {
		return err
	}
	d.quote("app", line)
	return nil
}

func (d *demo) synced(ctx context.Context, value string) error {
	if err := d.sees(ctx, `"present"`, `"greeting"`, value); err != nil {
		return err
	}
	return d.sees(ctx, `"synced"`)
}

func (d *demo) online(ctx context.Context) error {
	d.phase("Phase 1, online: requests pass through, and their answers are recorded")
	if err := d.synced(ctx, "hello"); err != nil {
		return err
	}
	if err := d.greet(ctx, "hello again"); err != nil {
		return err
	}
	if err := d.sees(ctx, `"updated"`, "hello again"); err != nil {
		return err
	}
	if err := d.kubectl(ctx, 0, "hello again", "get", "configmap", "greeting", "-o", "jsonpath={.data.value}"); err != nil {
		return err
	}
	return d.rows(ctx)
}

func (d *demo) cut(ctx context.Context) error {
	d.phase("Phase 2, link cut: the program continues, its watch stays open, and no write is faked")
	d.node.Link.Cut()
	if err := d.node.AwaitLink(ctx, d.pod, "offline"); err != nil {
		return err
	}
	if err := d.greet(ctx, "good morning"); err != nil {
		return err
	}
	for _, step := range []struct {
		code int
		want string
		args []string
	}{
		{0, "hello again", []string{"get", "configmap", "greeting", "-o", "jsonpath={.data.value}"}},
		{1, "link to the API server is down", []string{"create", "configmap", "faked"}},
		{1, "not recorded", []string{"get", "services"}},
	} {
		if err := d.kubectl(ctx, step.code, step.want, step.args...); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) restart(ctx context.Context, container string) error {
	if container == "app" {
		if err := d.app.Skip(); err != nil {
			return err
		}
	}
	start := time.Now()
	if err := d.pod.RestartContainer(ctx, container); err != nil {
		return err
	}
	d.say("%s was restarted, %v", container, time.Since(start).Round(time.Millisecond))
	return nil
}

func (d *demo) restartApp(ctx context.Context) error {
	d.phase("Phase 3, program restarted offline: it lists, watches and syncs from SQLite")
	if err := d.restart(ctx, "app"); err != nil {
		return err
	}
	return d.synced(ctx, "hello again")
}

func (d *demo) restartSidecar(ctx context.Context) error {
	d.phase("Phase 4, sidecar and program restarted offline: the answers are on the disk")
	if err := d.restart(ctx, "rockpool-sidecar"); err != nil {
		return err
	}
	if err := d.restart(ctx, "app"); err != nil {
		return err
	}
	if err := d.synced(ctx, "hello again"); err != nil {
		return err
	}
	return d.rows(ctx)
}

func (d *demo) back(ctx context.Context) error {
	d.phase("Phase 5, link back: the open watch continues after the last version that the program has seen")
	d.node.Link.Restore()
	if err := d.sees(ctx, `"updated"`, "good morning"); err != nil {
		return err
	}
	if err := d.node.AwaitLink(ctx, d.pod, "online"); err != nil {
		return err
	}
	if err := d.kubectl(ctx, 0, "created", "create", "configmap", "written"); err != nil {
		return err
	}
	if err := d.sees(ctx, `"added"`, `"written"`); err != nil {
		return err
	}
	if err := d.node.AwaitRows(ctx, "v_object WHERE name = 'written'"); err != nil {
		return err
	}
	return d.rows(ctx)
}
