// Command informer is an ordinary in-cluster program, as thousands run: it takes
// rest.InClusterConfig, starts a shared informer for ConfigMaps in its namespace
// and prints what it sees. It has never heard of Rockpool.
//
// Each line on standard output is one JSON object: {"event":"synced",…} once,
// and added, updated or deleted for each change.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

type line struct {
	Event           string            `json:"event"`
	Name            string            `json:"name,omitempty"`
	ResourceVersion string            `json:"resourceVersion,omitempty"`
	Data            map[string]string `json:"data,omitempty"`
	Count           int               `json:"count"`
}

func main() {
	selector := flag.String("selector", "", "label selector of the ConfigMaps")
	contentType := flag.String("content-type", "", "what to ask the API for; empty for client-go's default")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, *selector, *contentType); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, selector, contentType string) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	config.ContentType = contentType
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	namespace, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithNamespace(strings.TrimSpace(string(namespace))),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = selector }))
	informer := factory.Core().V1().ConfigMaps().Informer()
	out := json.NewEncoder(os.Stdout)
	report := func(event string, object any) {
		if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = gone.Obj
		}
		cm, ok := object.(*corev1.ConfigMap)
		if !ok {
			log.Fatalf("%s of a %T", event, object)
		}
		if err := out.Encode(line{event, cm.Name, cm.ResourceVersion, cm.Data, len(informer.GetStore().ListKeys())}); err != nil {
			log.Fatal(err)
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(object any, initial bool) {
			if !initial {
				report("added", object)
			}
		},
		UpdateFunc: func(_, object any) { report("updated", object) },
		DeleteFunc: func(object any) { report("deleted", object) },
	}); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return nil
	}
	for _, object := range informer.GetStore().List() {
		report("present", object)
	}
	if err := out.Encode(line{Event: "synced", Count: len(informer.GetStore().ListKeys())}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
