package main

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"rockpool.dev/tests/bed/link"
)

// fleetSize is the number of informers of a fleet.
const fleetSize = 20

// fleet is a program with informers, behind a link that the test breaks.
type fleet struct {
	name   string
	link   *link.Link
	stores []cache.Store
	used   int64 // bytes on the link at the last traffic()
}

// cuts measures the traffic on the link when it breaks, for two fleets in this process. A fleet has
// 20 informers of client-go with its defaults. Each has its own selector, which selects all 2,000
// pods, so that they share nothing. One fleet reaches the API server directly and one through a
// sidecar that records, each over its own link. Both links break at the same time and in the same
// way, and the same pods change during the outage.
func (b *bench) cuts(ctx context.Context) error {
	if err := b.pods(ctx, someNamespace, someObjects); err != nil {
		return err
	}
	klog.SetLogger(logr.Discard()) // informers log each failure
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	direct, err := link.New(b.plane.Address())
	if err != nil {
		return err
	}
	defer direct.Close()
	edge, err := link.New(b.plane.Address())
	if err != nil {
		return err
	}
	defer edge.Close()
	t, err := b.startRemote(ctx, "cuts", edge)
	if err != nil {
		return err
	}
	defer t.sidecar.stop()
	plain := &rest.Config{Host: "https://" + direct.Address(), BearerToken: b.token, TLSClientConfig: rest.TLSClientConfig{CAData: b.plane.CA()}}
	through := &rest.Config{Host: t.config.Host, BearerToken: b.token, TLSClientConfig: rest.TLSClientConfig{CAData: t.config.CAData}}
	fleets := []*fleet{{name: "direct", link: direct}, {name: "on", link: edge}}
	for i, config := range []*rest.Config{plain, through} {
		fleets[i].traffic()
		if err := fleets[i].start(ctx, config, fleetSize); err != nil {
			return err
		}
	}
	what := fmt.Sprintf("%d informers x %d pods", fleetSize, someObjects)
	if err := b.caughtUp(ctx, what+", begin", fleets, nil); err != nil {
		return err
	}
	outages := []struct {
		what      string
		count     int
		last      time.Duration
		down      func(*link.Link)
		meanwhile func(context.Context) error
	}{
		{"cuts of 2 s", 10, 2 * time.Second, (*link.Link).Cut, nil},
		{"cuts that the API server's memory does not reach over", 3, 0, (*link.Link).Cut, b.plane.DropHistory},
		{"black holes of 60 s", 2, 60 * time.Second, (*link.Link).BlackHole, nil},
	}
	if b.short {
		outages = outages[:1]
	}
	for _, o := range outages {
		took := series{}
		for range o.count {
			for _, f := range fleets {
				o.down(f.link)
			}
			began := time.Now()
			if err := b.writer.change(ctx); err != nil {
				return err
			}
			if o.meanwhile != nil {
				if err := o.meanwhile(ctx); err != nil {
					return err
				}
			}
			if err := until(ctx, began.Add(o.last)); err != nil {
				return err
			}
			for _, f := range fleets {
				f.link.Restore()
			}
			if err := b.await(ctx, fleets, took); err != nil {
				return err
			}
		}
		if err := b.caughtUp(ctx, fmt.Sprintf("%s, %d %s", what, o.count, o.what), fleets, took); err != nil {
			return err
		}
	}
	return nil
}

// start runs the informers until ctx ends. They store only the identities of pods.
func (f *fleet) start(ctx context.Context, config *rest.Config, size int) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	for i := range size {
		factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(someNamespace),
			informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = fmt.Sprintf("informer!=%d", i) }),
			informers.WithTransform(func(object any) (any, error) {
				pod, ok := object.(*corev1.Pod)
				if !ok {
					return object, nil
				}
				return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion}}, nil
			}))
		informer := factory.Core().V1().Pods().Informer()
		f.stores = append(f.stores, informer.GetStore())
		factory.Start(ctx.Done())
	}
	return nil
}

// has reports whether all informers have these versions, by name.
func (f *fleet) has(want map[string]string) bool {
	for _, store := range f.stores {
		have := map[string]string{}
		for _, object := range store.List() {
			if pod, ok := object.(*corev1.Pod); ok {
				have[pod.Name] = pod.ResourceVersion
			}
		}
		if !maps.Equal(have, want) {
			return false
		}
	}
	return true
}

// traffic returns the bytes on the link since the last call.
func (f *fleet) traffic() float64 {
	s := f.link.Stats()
	before := f.used
	f.used = s.BytesUp + s.BytesDown
	return float64(f.used - before)
}

// awaitPatience is how long informers may take to get the state of the server.
const awaitPatience = 3 * time.Minute

// await waits until all informers have the state of the server, and adds the time that each fleet
// took, in ms.
func (b *bench) await(ctx context.Context, fleets []*fleet, took series) error {
	behind, err := b.waitFor(ctx, fleets, took)
	for _, f := range behind {
		b.report.wrong("an informer of 20, %s, does not get the state of the API server", f.name)
	}
	return err
}

// waitFor is await that returns the fleets that do not have it in time.
func (b *bench) waitFor(ctx context.Context, fleets []*fleet, took series) (behind []*fleet, err error) {
	start := time.Now()
	want, err := b.versions(ctx, "pods", someNamespace)
	if err != nil {
		return nil, err
	}
	behind = append([]*fleet(nil), fleets...)
	err = wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, awaitPatience, true, func(context.Context) (bool, error) {
		var still []*fleet
		for _, f := range behind {
			if !f.has(want) {
				still = append(still, f)
				continue
			}
			if took != nil {
				took.add(f.name, ms(time.Since(start)))
			}
		}
		behind = still
		return len(behind) == 0, nil
	})
	if wait.Interrupted(err) && ctx.Err() == nil {
		return behind, nil
	}
	return nil, err
}

// caughtUp waits likewise, and reports the traffic.
func (b *bench) caughtUp(ctx context.Context, what string, fleets []*fleet, took series) error {
	if err := b.await(ctx, fleets, nil); err != nil {
		return err
	}
	used := series{}
	for _, f := range fleets {
		used.add(f.name, f.traffic()/1e3)
	}
	b.report.compare(what, "over the link, both ways", "KB", used)
	if took != nil {
		b.report.compare(what, "until all have all again, median", "ms", took)
	}
	return nil
}

// podWriter changes pods. A run has one, so that each change is another one than those before.
type podWriter struct {
	*stage
	next int // change
}

// change changes 20 of 2,000 pods, deletes one and creates one.
func (w *podWriter) change(ctx context.Context) error {
	api := w.admin.CoreV1().Pods(someNamespace)
	for range 20 {
		w.next++
		patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"example.com/changed":"%d"}}}`, w.next)
		if _, err := api.Patch(ctx, pod(w.next%(someObjects/2)).Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return err
		}
	}
	if err := api.Delete(ctx, pod(someObjects-w.next/20).Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		return err
	}
	_, err := api.Create(ctx, pod(someObjects+w.next), metav1.CreateOptions{})
	return err
}
