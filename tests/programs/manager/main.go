// Command manager is a typical operator with controller-runtime: a manager with the in-cluster
// configuration, a cached client, and one reconciler each for ConfigMaps, for a custom resource,
// and for the metadata of Services. It knows nothing of Rockpool.
//
// Each line on standard output is a JSON object: {"event":"reconciled",…} for each call of a
// reconciler. When the caches have synced, it prints {"event":"present",…} for each object that the
// cached client lists, and {"event":"synced",…}. A cache that lists again causes reconciliations of
// unchanged objects.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strings"
	"sync"

	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

var (
	configMaps = schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}
	services   = schema.GroupVersionKind{Version: "v1", Kind: "Service"}
	secrets    = schema.GroupVersionKind{Version: "v1", Kind: "Secret"}
	widgets    = schema.GroupVersionKind{Group: "edge.example.com", Version: "v1", Kind: "Widget"}
)

type line struct {
	Event           string            `json:"event"`
	Kind            string            `json:"kind,omitempty"`
	Name            string            `json:"name,omitempty"`
	UID             string            `json:"uid,omitempty"`
	ResourceVersion string            `json:"resourceVersion,omitempty"`
	Data            map[string]string `json:"data,omitempty"`
	Count           int               `json:"count"`
}

func main() {
	ctrl.SetLogger(funcr.New(func(prefix, args string) { log.Println(prefix, args) }, funcr.Options{}))
	if err := run(ctrl.SetupSignalHandler()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	namespace, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	if err != nil {
		return err
	}
	m, err := ctrl.NewManager(config, ctrl.Options{
		Cache:   cache.Options{DefaultNamespaces: map[string]cache.Config{strings.TrimSpace(string(namespace)): {}}},
		Client:  client.Options{Cache: &client.CacheOptions{Unstructured: true}},
		Metrics: metricsserver.Options{BindAddress: "0"},
	})
	if err != nil {
		return err
	}
	p := &printer{client: m.GetClient(), out: json.NewEncoder(os.Stdout)}
	// A change of a Secret also reconciles the ConfigMap of the same name.
	err = ctrl.NewControllerManagedBy(m).For(&corev1.ConfigMap{}).
		WatchesMetadata(partial(secrets), &handler.EnqueueRequestForObject{}).
		Complete(p.reconciler(configMaps, func() client.Object { return &corev1.ConfigMap{} }))
	if err != nil {
		return err
	}
	err = ctrl.NewControllerManagedBy(m).Named("widget").For(custom()).
		Complete(p.reconciler(widgets, func() client.Object { return custom() }))
	if err != nil {
		return err
	}
	err = ctrl.NewControllerManagedBy(m).For(&corev1.Service{}, builder.OnlyMetadata).
		Complete(p.reconciler(services, func() client.Object { return partial(services) }))
	if err != nil {
		return err
	}
	// Runnables start when the caches have synced.
	if err := m.Add(manager.RunnableFunc(p.list)); err != nil {
		return err
	}
	return m.Start(ctx)
}

func partial(kind schema.GroupVersionKind) *metav1.PartialObjectMetadata {
	o := &metav1.PartialObjectMetadata{}
	o.SetGroupVersionKind(kind)
	return o
}

func custom() *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(widgets)
	return o
}

// printer prints a line for each object.
type printer struct {
	client client.Client // reads from the caches
	mu     sync.Mutex
	out    *json.Encoder
}

// reconciler returns a reconciler that reads the object and prints it.
func (p *printer) reconciler(kind schema.GroupVersionKind, empty func() client.Object) interface {
	Reconcile(context.Context, ctrl.Request) (ctrl.Result, error)
} {
	return reconcilerFunc(func(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
		object := empty()
		err := p.client.Get(ctx, request.NamespacedName, object)
		if apierrors.IsNotFound(err) {
			return ctrl.Result{}, p.print(line{Event: "absent", Kind: kind.Kind, Name: request.Name})
		}
		if err != nil {
			return ctrl.Result{}, err
		}
		return ctrl.Result{}, p.print(lineOf("reconciled", kind, object))
	})
}

type reconcilerFunc func(context.Context, ctrl.Request) (ctrl.Result, error)

func (f reconcilerFunc) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	return f(ctx, request)
}

func lineOf(event string, kind schema.GroupVersionKind, o client.Object) line {
	l := line{Event: event, Kind: kind.Kind, Name: o.GetName(), UID: string(o.GetUID()), ResourceVersion: o.GetResourceVersion()}
	switch o := o.(type) {
	case *corev1.ConfigMap:
		l.Data = o.Data
	case *unstructured.Unstructured:
		l.Data, _, _ = unstructured.NestedStringMap(o.Object, "data") // nil if it is not a map of strings
	}
	return l
}

// list prints the objects in the caches.
func (p *printer) list(ctx context.Context) error {
	var cms corev1.ConfigMapList
	custom := &unstructured.UnstructuredList{}
	custom.SetGroupVersionKind(widgets.GroupVersion().WithKind("WidgetList"))
	partial := &metav1.PartialObjectMetadataList{}
	partial.SetGroupVersionKind(services.GroupVersion().WithKind("ServiceList"))
	for _, list := range []client.ObjectList{&cms, custom, partial} {
		if err := p.client.List(ctx, list); err != nil {
			return fmt.Errorf("list %T: %w", list, err)
		}
	}
	var lines []line
	for i := range cms.Items {
		lines = append(lines, lineOf("present", configMaps, &cms.Items[i]))
	}
	for i := range custom.Items {
		lines = append(lines, lineOf("present", widgets, &custom.Items[i]))
	}
	for i := range partial.Items {
		lines = append(lines, lineOf("present", services, &partial.Items[i]))
	}
	for _, l := range lines {
		if err := p.print(l); err != nil {
			return err
		}
	}
	return p.print(line{Event: "synced", Count: len(lines)})
}

func (p *printer) print(l line) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Encode(l)
}
