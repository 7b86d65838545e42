// Command informer is an ordinary in-cluster program. It takes rest.InClusterConfig, starts shared
// informers for ConfigMaps, or for the resources of -resource, in its namespace, and prints their
// events. It knows nothing of Rockpool.
//
// Each line on standard output is a JSON object: {"event":"present",…} for each object that exists
// at the start, {"event":"synced",…} once, and added, updated or deleted for each change. An
// informer that lists again prints updated for unchanged objects.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

type line struct {
	Event           string            `json:"event"`
	Resource        string            `json:"resource,omitempty"`
	Name            string            `json:"name,omitempty"`
	UID             string            `json:"uid,omitempty"`
	ResourceVersion string            `json:"resourceVersion,omitempty"`
	Data            map[string]string `json:"data,omitempty"`
	Count           int               `json:"count"`
}

type settings struct {
	client, resources, selector, contentType string
}

func main() {
	var s settings
	flag.StringVar(&s.client, "client", "typed", "typed, dynamic or metadata")
	flag.StringVar(&s.resources, "resource", "configmaps.v1.", "resources as RESOURCE.VERSION.GROUP, comma-separated")
	flag.StringVar(&s.selector, "selector", "", "label selector of the objects")
	flag.StringVar(&s.contentType, "content-type", "", "content type of requests; empty: client-go's default")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, s); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, s settings) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	config.ContentType = s.contentType
	namespace, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	if err != nil {
		return err
	}
	f, err := newFactory(config, s, strings.TrimSpace(string(namespace)))
	if err != nil {
		return err
	}
	p := &printer{out: json.NewEncoder(os.Stdout)}
	stores := map[string]cache.SharedIndexInformer{}
	for argument := range strings.SplitSeq(s.resources, ",") {
		gvr, _ := schema.ParseResourceArg(argument)
		if gvr == nil {
			return fmt.Errorf("-resource %q: not RESOURCE.VERSION.GROUP", argument)
		}
		informer, err := f.informer(*gvr)
		if err != nil {
			return err
		}
		stores[gvr.Resource] = informer
		if err := p.follow(gvr.Resource, informer); err != nil {
			return err
		}
	}
	f.start(ctx.Done())
	defer f.shutdown()
	count := 0
	for resource, informer := range stores {
		if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			return nil
		}
		for _, object := range informer.GetStore().List() {
			p.print("present", resource, object, informer)
			count++
		}
	}
	p.encode(line{Event: "synced", Count: count})
	<-ctx.Done()
	return nil
}

// factory is the common interface of the three kinds of informer factories.
type factory struct {
	informer func(schema.GroupVersionResource) (cache.SharedIndexInformer, error)
	start    func(stop <-chan struct{})
	shutdown func()
}

func newFactory(config *rest.Config, s settings, namespace string) (f factory, err error) {
	tweak := func(o *metav1.ListOptions) { o.LabelSelector = s.selector }
	switch s.client {
	case "typed":
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return f, err
		}
		all := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace), informers.WithTweakListOptions(tweak))
		return factory{func(gvr schema.GroupVersionResource) (cache.SharedIndexInformer, error) {
			generic, err := all.ForResource(gvr)
			if err != nil {
				return nil, err
			}
			return generic.Informer(), nil
		}, all.Start, all.Shutdown}, nil
	case "dynamic":
		client, err := dynamic.NewForConfig(config)
		if err != nil {
			return f, err
		}
		all := dynamicinformer.NewFilteredDynamicSharedInformerFactory(client, 0, namespace, tweak)
		return factory{func(gvr schema.GroupVersionResource) (cache.SharedIndexInformer, error) {
			return all.ForResource(gvr).Informer(), nil
		}, all.Start, all.Shutdown}, nil
	case "metadata":
		client, err := metadata.NewForConfig(config)
		if err != nil {
			return f, err
		}
		all := metadatainformer.NewFilteredSharedInformerFactory(client, 0, namespace, tweak)
		return factory{func(gvr schema.GroupVersionResource) (cache.SharedIndexInformer, error) {
			return all.ForResource(gvr).Informer(), nil
		}, all.Start, all.Shutdown}, nil
	}
	return f, fmt.Errorf("-client %q: not typed, dynamic or metadata", s.client)
}

// printer writes lines. Handlers of several informers call it concurrently.
type printer struct {
	mu  sync.Mutex
	out *json.Encoder
}

func (p *printer) follow(resource string, informer cache.SharedIndexInformer) error {
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(object any, initial bool) {
			if !initial {
				p.print("added", resource, object, informer)
			}
		},
		UpdateFunc: func(_, object any) { p.print("updated", resource, object, informer) },
		DeleteFunc: func(object any) { p.print("deleted", resource, object, informer) },
	})
	return err
}

func (p *printer) print(event, resource string, object any, informer cache.SharedIndexInformer) {
	if deleted, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = deleted.Obj
	}
	m, err := meta.Accessor(object)
	if err != nil {
		log.Fatalf("%s of a %T: %v", event, object, err)
	}
	p.encode(line{event, resource, m.GetName(), string(m.GetUID()), m.GetResourceVersion(), data(object), len(informer.GetStore().ListKeys())})
}

// data is the field data of an object, if it has one. Of an EndpointSlice it is the addresses.
func data(object any) map[string]string {
	if s, ok := object.(*discoveryv1.EndpointSlice); ok {
		var addresses []string
		for _, e := range s.Endpoints {
			addresses = append(addresses, e.Addresses...)
		}
		return map[string]string{"addresses": "[" + strings.Join(addresses, " ") + "]"}
	}
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return nil
	}
	found := map[string]string{}
	values, _ := fields["data"].(map[string]any)
	for key, value := range values {
		found[key] = fmt.Sprint(value)
	}
	return found
}

func (p *printer) encode(l line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.out.Encode(l); err != nil {
		log.Fatal(err)
	}
}
