package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// informerStarts measures how soon an informer of client-go has 2,000 pods: with a watch list
// (KEP-3157), as client-go does by default, and with a list and a watch. The client has its defaults,
// such as gzip. A sidecar that records has recorded the same before.
func (b *bench) informerStarts(ctx context.Context) error {
	if err := b.pods(ctx, someNamespace, someObjects); err != nil {
		return err
	}
	klog.SetLogger(logr.Discard()) // reflectors log what ends them
	for _, e := range encodings {
		for _, way := range []struct {
			name   string
			listed bool
		}{{"watch list", false}, {"list and watch", true}} {
			starters := map[string]*starter{}
			for _, t := range b.targets(0) {
				s, err := t.starter(e.accept, way.listed)
				if err != nil {
					return err
				}
				starters[t.name] = s
				if err := b.informerStart(ctx, t, s, nil); err != nil { // connects
					return err
				}
			}
			took := series{}
			for round := range b.rounds {
				for _, t := range b.targets(round) {
					if err := b.informerStart(ctx, t, starters[t.name], took); err != nil {
						return err
					}
				}
			}
			what := fmt.Sprintf("informer start, %d pods, %s", someObjects, e.name)
			b.report.compare(what, way.name+": until it has all", "ms", took).atMost(1.1, ofRatio)
		}
	}
	return nil
}

// starter starts informers over one connection.
type starter struct {
	client kubernetes.Interface
	listed bool // with a list
}

func (t *target) starter(accept string, listed bool) (*starter, error) {
	config := rest.CopyConfig(t.config)
	config.DisableCompression = false
	config.AcceptContentTypes, config.ContentType = accept, accept
	same := *t
	same.config = config
	var connection *http.Client
	connection, err := same.fresh()
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfigAndClient(config, connection)
	return &starter{client, listed}, err
}

// listed is a source of objects that a reflector lists.
type listed struct{ *cache.ListWatch }

// IsWatchListSemanticsUnSupported is the question of a reflector before a watch list.
func (listed) IsWatchListSemanticsUnSupported() bool { return true }

// source is what an informer lists and watches.
func (s *starter) source() cache.ListerWatcher {
	pods := s.client.CoreV1().Pods(someNamespace)
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			if !s.listed {
				return nil, errors.New("the watch list did not work: a list follows")
			}
			return pods.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return pods.Watch(ctx, o)
		},
	}
	if s.listed {
		return listed{source}
	}
	return source
}

// informerStart runs an informer until it has all pods, and waits until the target is idle. took, if
// not nil, receives the time in ms.
func (b *bench) informerStart(ctx context.Context, t *target, s *starter, took series) error {
	running, stop := context.WithTimeout(ctx, 20*time.Second)
	var reflector sync.WaitGroup
	defer reflector.Wait()
	defer stop()
	informer := cache.NewSharedIndexInformer(s.source(), &corev1.Pod{}, 0, cache.Indexers{})
	begun := time.Now()
	reflector.Go(func() { informer.RunWithContext(running) })
	select {
	case <-informer.HasSyncedChecker().Done():
	case <-running.Done():
		return fmt.Errorf("%s: an informer does not begin: %w", t.name, running.Err())
	}
	if took != nil {
		took.add(t.name, ms(time.Since(begun)))
	}
	if n := len(informer.GetStore().ListKeys()); n != someObjects {
		b.report.wrong("an informer, %s, has %d pods, want %d", t.name, n, someObjects)
	}
	_, err := t.cpu(ctx)
	return err
}
