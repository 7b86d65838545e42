// Command watcher does what client-go's reflector does, and prints all of it: it lists ConfigMaps
// in its namespace, watches from the list's version on, and watches again from the last event on
// when the stream ends. When its version has expired, it lists again. It knows nothing of Rockpool.
//
// Several clients do that concurrently, each in its own form. Each line on standard output is a
// JSON object, in the order in which its client has received it: "listed" with all objects, "watch"
// when a stream has started, the types of events, "absent" for a 404 and "gone".
//
// Two more clients read other namespaces if they are named: -ruby=NAMESPACE watches by the deprecated
// path /api/v1/watch/…, as the Ruby client of fluentd does, and -single=NAMESPACE/NAME gets one object
// and watches it by its name.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
)

const (
	asJSON     = "application/json"
	asProtobuf = "application/vnd.kubernetes.protobuf"
	// pause is the time between attempts.
	pause = 100 * time.Millisecond
)

// line is an output line.
type line struct {
	Client          string            `json:"client"`
	Event           string            `json:"event"`
	Name            string            `json:"name,omitempty"`
	UID             string            `json:"uid,omitempty"`
	ResourceVersion string            `json:"resourceVersion,omitempty"`
	Objects         map[string]string `json:"objects,omitempty"` // UID/resourceVersion by name
}

// client lists and watches in one form.
type client struct {
	name  string
	list  func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watch func(context.Context, metav1.ListOptions) (watch.Interface, error)
	// options are the options of its watches.
	options metav1.ListOptions
	// renews begins without a version after a 410: the version of an object that does not change
	// stays expired.
	renews, gone bool
	print        func(line)
}

var (
	ruby   = flag.String("ruby", "", "the namespace of the client that uses the path /api/v1/watch")
	single = flag.String("single", "", "namespace and name of the object of the client that watches one object")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	config.QPS = -1
	text, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	if err != nil {
		return err
	}
	namespace := strings.TrimSpace(string(text))
	inJSON, err := full(config, asJSON, namespace)
	if err != nil {
		return err
	}
	inProtobuf, err := full(config, asProtobuf, namespace)
	if err != nil {
		return err
	}
	partial, err := partial(config, namespace)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	out := json.NewEncoder(os.Stdout)
	var running sync.WaitGroup
	start := func(c client, name string, options metav1.ListOptions) {
		c.name, c.options = name, options
		c.print = func(l line) {
			mu.Lock()
			defer mu.Unlock()
			l.Client = name
			if err := out.Encode(l); err != nil {
				log.Print(err)
			}
		}
		running.Go(func() { c.run(ctx) })
	}
	bookmarks := metav1.ListOptions{AllowWatchBookmarks: true}
	start(inJSON, "json", bookmarks)
	start(inJSON, "twin", bookmarks)
	start(inProtobuf, "protobuf", bookmarks)
	start(inProtobuf, "without bookmarks", metav1.ListOptions{})
	start(inProtobuf, "selected", metav1.ListOptions{AllowWatchBookmarks: true, LabelSelector: "half=a"})
	start(partial, "metadata", bookmarks)
	start(inJSON, "for a while", metav1.ListOptions{AllowWatchBookmarks: true, TimeoutSeconds: ptr.To[int64](5)})
	if *ruby != "" {
		c, err := deprecated(config, *ruby)
		if err != nil {
			return err
		}
		start(c, "ruby", metav1.ListOptions{})
	}
	if namespace, name, ok := strings.Cut(*single, "/"); ok {
		c, err := ofOne(config, namespace, name)
		if err != nil {
			return err
		}
		start(c, "single", metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	}
	running.Wait()
	return nil
}

// full reads complete objects.
func full(config *rest.Config, contentType, namespace string) (client, error) {
	config = rest.CopyConfig(config)
	config.ContentType, config.AcceptContentTypes = contentType, contentType
	all, err := kubernetes.NewForConfig(config)
	if err != nil {
		return client{}, err
	}
	api := all.CoreV1().ConfigMaps(namespace)
	return client{
		list:  func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return api.List(ctx, o) },
		watch: api.Watch,
	}, nil
}

// partial reads only metadata.
func partial(config *rest.Config, namespace string) (client, error) {
	all, err := metadata.NewForConfig(config)
	if err != nil {
		return client{}, err
	}
	api := all.Resource(corev1.SchemeGroupVersion.WithResource("configmaps")).Namespace(namespace)
	return client{
		list:  func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return api.List(ctx, o) },
		watch: api.Watch,
	}, nil
}

// deprecated watches by the path that has been deprecated since 1.11.
func deprecated(config *rest.Config, namespace string) (client, error) {
	c, err := full(config, asJSON, namespace)
	if err != nil {
		return client{}, err
	}
	config = rest.CopyConfig(config)
	config.ContentType, config.AcceptContentTypes = asJSON, asJSON
	config.APIPath, config.GroupVersion, config.NegotiatedSerializer = "/api", &corev1.SchemeGroupVersion, scheme.Codecs.WithoutConversion()
	api, err := rest.RESTClientFor(config)
	c.watch = func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
		return api.Get().AbsPath("/api/v1/watch/namespaces", namespace, "configmaps").Param("resourceVersion", o.ResourceVersion).Watch(ctx)
	}
	return c, err
}

// ofOne gets one object instead of a list.
func ofOne(config *rest.Config, namespace, name string) (client, error) {
	c, err := full(config, asJSON, namespace)
	if err != nil {
		return client{}, err
	}
	all, err := kubernetes.NewForConfig(config)
	c.renews = true
	c.list = func(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) {
		o, err := all.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		return &corev1.ConfigMapList{ListMeta: metav1.ListMeta{ResourceVersion: o.ResourceVersion}, Items: []corev1.ConfigMap{*o}}, nil
	}
	return c, err
}

// run lists and watches until ctx ends.
func (c *client) run(ctx context.Context) {
	last := ""
	for ctx.Err() == nil {
		err := c.step(ctx, &last)
		if apierrors.IsGone(err) || apierrors.IsResourceExpired(err) {
			last = ""
			c.gone = true
			c.print(line{Event: "gone"})
		} else if err != nil {
			log.Printf("%s: %v", c.name, err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// step lists if there is no last version, and reads one stream to its end.
func (c *client) step(ctx context.Context, last *string) error {
	options := c.options
	if *last == "" {
		list, err := c.list(ctx, metav1.ListOptions{LabelSelector: options.LabelSelector})
		if apierrors.IsNotFound(err) {
			c.print(line{Event: "absent"})
			return nil
		}
		if err != nil {
			return err
		}
		if *last, err = c.listed(list); err != nil {
			return err
		}
		if c.renews && c.gone {
			*last = ""
		}
	}
	options.ResourceVersion = *last
	w, err := c.watch(ctx, options)
	if err != nil {
		return err
	}
	defer w.Stop()
	c.print(line{Event: "watch", ResourceVersion: *last})
	for event := range w.ResultChan() {
		if event.Type == watch.Error {
			return apierrors.FromObject(event.Object)
		}
		m, err := meta.Accessor(event.Object)
		if err != nil {
			return err
		}
		*last = m.GetResourceVersion()
		c.print(line{Event: string(event.Type), Name: m.GetName(), UID: string(m.GetUID()), ResourceVersion: *last})
	}
	return nil
}

// listed prints a list and returns its version.
func (c *client) listed(list runtime.Object) (version string, err error) {
	m, err := meta.ListAccessor(list)
	if err != nil {
		return "", err
	}
	objects := map[string]string{}
	err = meta.EachListItem(list, func(item runtime.Object) error {
		m, err := meta.Accessor(item)
		if err != nil {
			return err
		}
		objects[m.GetName()] = string(m.GetUID()) + "/" + m.GetResourceVersion()
		return nil
	})
	c.print(line{Event: "listed", ResourceVersion: m.GetResourceVersion(), Objects: objects})
	return m.GetResourceVersion(), err
}
