package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

const (
	filterNode  = "edge-1" // of the sidecars
	filterAgent = "coredns/bench"
	slicesPath  = "/apis/discovery.k8s.io/v1/namespaces/" + slicesNamespace + "/endpointslices"
	// changingPath has the slices that change.
	changingPath = "/apis/discovery.k8s.io/v1/namespaces/" + changingNamespace + "/endpointslices"
	// localServices is how many Services have their endpoints limited to their node.
	localServices = 100
	// allServices is how many Services the slices are of.
	allServices = 1000
)

// filters compares two clients of one sidecar that list the same: servicetopology applies to the one
// by its User-Agent.
func (b *bench) filters(ctx context.Context) error {
	objects := manyObjects
	if b.short {
		objects = someObjects
	}
	if err := b.slices(ctx, objects); err != nil {
		return err
	}
	filtered := *b.on
	filtered.agent = filterAgent
	for _, e := range encodings {
		size, err := b.sameList(ctx, slicesPath, e.accept)
		if err != nil {
			return err
		}
		if err := b.isFiltered(ctx, &filtered, e.accept, size); err != nil {
			return err
		}
		if _, err := b.on.cpu(ctx); err != nil {
			return err
		}
		times, own := series{}, series{}
		for round := range b.rounds {
			targets := []*target{b.on, &filtered}
			for i := range targets {
				t := targets[(i+round)%len(targets)]
				before, err := t.cpuAtRest()
				if err != nil {
					return err
				}
				took, _, err := t.timed(ctx, slicesPath, e.accept)
				if err != nil {
					return err
				}
				after, err := t.cpu(ctx)
				if err != nil {
					return err
				}
				name := "unfiltered"
				if t.agent != "" {
					name = "filtered"
				}
				times.add(name, ms(took))
				own.add(name, ms(after-before))
			}
		}
		what := fmt.Sprintf("LIST %d EndpointSlices, %s, %.1f MB", objects, e.name, float64(size)/1e6)
		b.report.filtered(what, "to the last byte", "", times, 1.10)
		b.report.medians(what, "unfiltered: own CPU", "ms", series{"on": own["unfiltered"]})
		b.report.medians(what, "through servicetopology: own CPU", "ms", series{"on": own["filtered"]})
	}
	return b.filteredWatch(ctx, &filtered)
}

// filteredWatch compares the delay of the same events, in the same window and through one sidecar, for
// clients with and without the filter. Each event is of a slice that loses endpoints in the filter.
func (b *bench) filteredWatch(ctx context.Context, filtered *target) error {
	const streams, rate = 20, 100
	last, rounds := 5*time.Second, (b.rounds+2)/3
	if b.short {
		last, rounds = 2*time.Second, 1
	}
	w, err := b.changingSlices(ctx)
	if err != nil {
		return err
	}
	p50, p99, later := series{}, series{}, series{}
	var achieved []float64
	for range rounds {
		pair := []*window{{target: b.on}, {target: filtered}}
		reached, err := b.window(ctx, w, pair, streams, rate, last, nil)
		if err != nil {
			return err
		}
		achieved = append(achieved, reached)
		for i, name := range []string{"unfiltered", "filtered"} {
			all := pair[i].latencies(w)
			p50.add(name, percentile(all, 50))
			p99.add(name, percentile(all, 99))
		}
		later.add("filtered", pair[1].behind(pair[0]))
	}
	what := fmt.Sprintf("WATCH EndpointSlices, 2 x %d x %d/s (%.0f/s reached)", streams, rate, median(achieved))
	b.report.filtered(what, "delivery p50", ", p50", p50, 1.15)
	b.report.filtered(what, "delivery p99", ", p99", p99, 1.3)
	b.report.difference(what, "an event is later than unfiltered, p50", "ms", series{"on": later["filtered"]}, p50.median("filtered"))
	return nil
}

// filtered adds rows about two clients. suffix ends the name of the ratio, which bound is about.
func (r *report) filtered(what, measure, suffix string, took series, bound float64) {
	r.medians(what, "unfiltered: "+measure, "ms", series{"on": took["unfiltered"]})
	r.medians(what, "through servicetopology: "+measure, "ms", series{"on": took["filtered"]})
	ratios := series{"on": took.ratios("filtered", "unfiltered")}
	r.medians(what, "through servicetopology, of unfiltered"+suffix, "x", ratios).atMost(bound, ofOn)
}

// changingSlices creates slices of a Service whose endpoints are limited to their node, and returns
// their writer.
func (b *bench) changingSlices(ctx context.Context) (*writer, error) {
	if err := b.localService(ctx, changingNamespace, serviceName(0)); err != nil {
		return nil, err
	}
	api := b.admin.DiscoveryV1().EndpointSlices(changingNamespace)
	object := func(hand int, sent string) *discoveryv1.EndpointSlice {
		s := slice(0)
		s.Name, s.Annotations = handName(hand), map[string]string{"sent": sent}
		return s
	}
	for i := range hands {
		if _, err := api.Create(ctx, object(i, ""), metav1.CreateOptions{}); err != nil {
			return nil, err
		}
	}
	return &writer{path: changingPath, update: func(ctx context.Context, hand int, sent string) (string, error) {
		got, err := api.Update(ctx, object(hand, sent), metav1.UpdateOptions{})
		if err != nil {
			return "", err
		}
		return got.ResourceVersion, nil
	}}, nil
}

// localService creates a Service whose endpoints are limited to their node.
func (b *bench) localService(ctx context.Context, namespace, name string) error {
	_, err := b.admin.CoreV1().Services(namespace).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"openyurt.io/topologyKeys": "kubernetes.io/hostname"}},
		Spec:       corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	return err
}

// isFiltered checks that the filter leaves something out. Afterwards, it has read the Services.
func (b *bench) isFiltered(ctx context.Context, t *target, accept string, size int) error {
	body, err := t.body(ctx, slicesPath, accept)
	if err != nil {
		return err
	}
	if accept == asJSON && len(body) >= size {
		b.report.wrong("LIST %s as %s has %d bytes, and %d unfiltered", slicesPath, t.agent, len(body), size)
	}
	return nil
}

// slices creates n slices with ten endpoints each, and Services, once.
func (b *bench) slices(ctx context.Context, n int) error {
	if b.made[slicesNamespace] {
		return nil
	}
	progress("creating %d EndpointSlices", n)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(creators)
	for i := range localServices {
		group.Go(func() error { return b.localService(ctx, slicesNamespace, serviceName(i*allServices/localServices)) })
	}
	for i := range n {
		group.Go(func() error {
			_, err := b.admin.DiscoveryV1().EndpointSlices(slicesNamespace).Create(ctx, slice(i), metav1.CreateOptions{})
			return err
		})
	}
	b.made[slicesNamespace] = true
	return group.Wait()
}

func serviceName(i int) string { return fmt.Sprintf("service-%03d", i%allServices) }

func slice(i int) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: fmt.Sprintf("%s-%05d", serviceName(i), i), Labels: map[string]string{discoveryv1.LabelServiceName: serviceName(i)}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To[int32](80)}},
	}
	for n := range 10 {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{fmt.Sprintf("10.%d.%d.%d", 1+i/250, i%250, 1+n)}, NodeName: ptr.To(fmt.Sprintf("edge-%d", (i+n)%100)),
			Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true), Serving: ptr.To(true), Terminating: ptr.To(false)},
		})
	}
	return s
}
