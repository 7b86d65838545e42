package main

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/tests/edge"
)

func (d *demo) intro() {
	d.say(`Rockpool's demo. A program at an edge site follows a ConfigMap in the cloud. Its link to the
cloud is cut, and comes back. The program is not changed for it, and does not notice.`)
}

// create creates the pod and shows what was added to it.
func (d *demo) create(ctx context.Context) (err error) {
	d.chapter("1. A pod opts in",
		`Its program "app" is an ordinary client-go informer on ConfigMaps, with InClusterConfig.
The annotation rockpool.dev/inject: "true" is all that makes it a Rockpool pod.`)
	if err := d.greet(ctx, "hello"); err != nil {
		return err
	}
	if d.pod, err = d.node.Create(ctx, edge.Pod(d.namespace, "web")); err != nil {
		return err
	}
	for _, c := range d.pod.Pod().Spec.InitContainers {
		d.say("Rockpool added the container %s.", c.Name)
	}
	for _, e := range d.pod.Pod().Spec.Containers[0].Env {
		if e.Name == "KUBERNETES_SERVICE_HOST" {
			d.say("Rockpool set %s=%s for the app: it talks to the sidecar, inside of its pod.", e.Name, e.Value)
		}
	}
	d.app = edge.NewOutput(d.pod, "app")
	return d.pod.WaitRunning(ctx)
}

// greet changes the ConfigMap that the program reads, directly in the cloud.
func (d *demo) greet(ctx context.Context, value string) error {
	api := d.cluster.Client().CoreV1().ConfigMaps(d.namespace)
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "greeting"}, Data: map[string]string{"value": value}}
	_, err := api.Update(ctx, cm, metav1.UpdateOptions{})
	if err != nil {
		_, err = api.Create(ctx, cm, metav1.CreateOptions{})
	}
	if err == nil {
		d.say("In the cloud, somebody sets the ConfigMap greeting to %q.", value)
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
	d.quote("app", readable(line))
	return nil
}

func (d *demo) synced(ctx context.Context, value string) error {
	if err := d.sees(ctx, `"present"`, `"greeting"`, value); err != nil {
		return err
	}
	return d.sees(ctx, `"synced"`)
}

func (d *demo) online(ctx context.Context) error {
	d.chapter("2. The link is up",
		"Requests pass through the sidecar. It records what the API server answers, in SQLite on the node.")
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
	d.say("What the sidecar has recorded:")
	return d.rows(ctx, collections, greeting)
}

func (d *demo) cut(ctx context.Context) error {
	d.chapter("3. The link is cut",
		`The app's watch stays open and quiet. What was recorded can be read. A write is refused and
never faked, and what was never recorded is an error that says so, not an empty list.`)
	d.node.Link.Cut()
	if err := d.node.AwaitLink(ctx, d.pod, "offline"); err != nil {
		return err
	}
	if err := d.greet(ctx, "good morning"); err != nil {
		return err
	}
	d.say("The edge cannot know that. In the pod:")
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
	d.say("The container %s was restarted. It took %v.", container, time.Since(start).Round(time.Millisecond))
	return nil
}

func (d *demo) restartApp(ctx context.Context) error {
	d.chapter("4. The app restarts while the link is cut", "It lists and watches again, and the sidecar answers from SQLite.")
	if err := d.restart(ctx, "app"); err != nil {
		return err
	}
	return d.synced(ctx, "hello again")
}

func (d *demo) restartSidecar(ctx context.Context) error {
	d.chapter("5. The sidecar restarts as well", "All that it knows is on the node's disk, so this also stands for a power loss.")
	if err := d.restart(ctx, "rockpool-sidecar"); err != nil {
		return err
	}
	if err := d.restart(ctx, "app"); err != nil {
		return err
	}
	return d.synced(ctx, "hello again")
}

func (d *demo) back(ctx context.Context) error {
	d.chapter("6. The link is back", "The app's watch goes on after the last version that the app has seen. Nothing is missed.")
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
	d.say("What the sidecar has recorded now, and the history of the link:")
	return d.rows(ctx, collections, greeting, history)
}

func (d *demo) outro() error {
	d.chapter("Done: every step went as expected",
		"The recordings stay in "+d.options.directory+" until the next demo. The queries above still work.")
	return nil
}
