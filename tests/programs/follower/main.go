// Command follower is an ordinary in-cluster program that builds with every client-go since 0.20.
// Once a second it prints the ConfigMap greeting of its namespace twice: as its informer has it,
// and as the API server answers. It knows nothing of Rockpool.
//
// The files *.mod beside it, for go build -modfile, choose the version of client-go.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	account, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	if err != nil {
		return err
	}
	namespace := strings.TrimSpace(string(account))
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
	lister := factory.Core().V1().ConfigMaps().Lister().ConfigMaps(namespace)
	forever := make(chan struct{})
	factory.Start(forever)
	factory.WaitForCacheSync(forever)
	for range time.Tick(time.Second) {
		followed, err := lister.Get("greeting")
		if err != nil {
			fmt.Println("followed:", err)
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		asked, err := client.CoreV1().ConfigMaps(namespace).Get(ctx, "greeting", metav1.GetOptions{})
		cancel()
		if err != nil {
			fmt.Println("asked:", err)
			continue
		}
		fmt.Printf("followed=%s asked=%s\n", followed.Data["value"], asked.Data["value"])
	}
	return nil
}
