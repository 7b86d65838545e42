// Package publish keeps a ConfigMap with the settings of running sidecars in every
// namespace that has had an injected pod, for pods can mount those of their own namespace
// only.
//
// Every replica of the injector does all of it, without a leader: each writes by server-side
// apply what the same settings say, so that it does not matter who is first. A ConfigMap whose
// last pod is gone is left alone: it is small, and the next pod needs it.
package publish

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
)

const (
	// DefaultInterval is how often all ConfigMaps are looked at, should somebody else have
	// changed or removed one. Replicas that are not of one mind while they are replaced write
	// no more often than that.
	DefaultInterval = 30 * time.Second
	// callTimeout bounds each call of the API server.
	callTimeout = 10 * time.Second
	// FieldManager owns what is applied.
	FieldManager = "rockpool-injector"
)

// Options of a [Publisher].
type Options struct {
	// Config says how to reach the API server.
	Config *rest.Config
	// Name of the ConfigMaps, and the key in them.
	Name, Key string
	// Content is what they are to have now; an error means that it is not known.
	Content func() (string, error)
	// Changed has a value when Content has changed.
	Changed <-chan struct{}
	// Interval: 0 = [DefaultInterval].
	Interval time.Duration
	// Clock: nil = the system's.
	Clock clock.WithTicker
	// Log is required.
	Log *zap.Logger
}

// Publisher is safe for concurrent use.
type Publisher struct {
	options Options
	client  rest.Interface
	wake    chan struct{}

	mu         sync.Mutex
	namespaces map[string]string // the content that each is known to have
	failing    map[string]string // what was logged last
}

// New returns a Publisher that does nothing until [Publisher.Run].
func New(options Options) (*Publisher, error) {
	if options.Interval == 0 {
		options.Interval = DefaultInterval
	}
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	config := rest.CopyConfig(options.Config)
	config.APIPath, config.GroupVersion, config.Timeout = "/api", &corev1.SchemeGroupVersion, callTimeout
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.QPS, config.Burst = 50, 100 // a change is written to all namespaces at once
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("client of the API server: %w", err)
	}
	return &Publisher{options: options, client: client, wake: make(chan struct{}, 1), namespaces: map[string]string{}, failing: map[string]string{}}, nil
}

// Add tells that a namespace has an injected pod. It does not wait for anything.
func (p *Publisher) Add(namespace string) {
	p.mu.Lock()
	_, known := p.namespaces[namespace]
	if !known {
		p.namespaces[namespace] = ""
	}
	p.mu.Unlock()
	if !known {
		select {
		case p.wake <- struct{}{}:
		default: // it is awake
		}
	}
}

// Run publishes until ctx ends.
func (p *Publisher) Run(ctx context.Context) {
	ticker := p.options.Clock.NewTicker(p.options.Interval)
	defer ticker.Stop()
	p.look(ctx)
	for {
		p.write(ctx)
		select {
		case <-ctx.Done():
			// Of a pod that was admitted a moment ago nobody else may know.
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
			defer cancel()
			p.write(last)
			return
		case <-p.wake:
		case <-p.options.Changed:
		case <-ticker.C():
			p.look(ctx)
		}
	}
}

// look reads all ConfigMaps, wherever they are, and learns of namespaces from before this
// process.
func (p *Publisher) look(ctx context.Context) {
	var list corev1.ConfigMapList
	err := p.client.Get().Resource("configmaps").
		VersionedParams(&metav1.ListOptions{
			FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, p.options.Name).String(), ResourceVersion: "0",
		}, metav1.ParameterCodec).Do(ctx).Into(&list)
	p.tell("", "reading the ConfigMaps of sidecars", err)
	if err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for namespace := range p.namespaces {
		p.namespaces[namespace] = ""
	}
	for _, c := range list.Items {
		p.namespaces[c.Namespace] = c.Data[p.options.Key]
	}
	published.Set(float64(len(list.Items)))
}

// write applies what is to be in the namespaces that are not known to have it.
func (p *Publisher) write(ctx context.Context) {
	content, err := p.options.Content()
	if err != nil {
		return // whose content it is tells why there is none
	}
	p.mu.Lock()
	due := slices.Sorted(maps.Keys(p.namespaces))
	due = slices.DeleteFunc(due, func(namespace string) bool { return p.namespaces[namespace] == content })
	p.mu.Unlock()
	for _, namespace := range due {
		if ctx.Err() != nil {
			return
		}
		err := p.apply(ctx, namespace, content)
		switch {
		case err == nil:
			writes.WithLabelValues("applied").Inc()
			p.know(namespace, &content)
		case gone(err):
			p.know(namespace, nil)
			err = nil
		case ctx.Err() != nil:
			return
		default:
			writes.WithLabelValues("failed").Inc()
		}
		p.tell(namespace, "writing the ConfigMap of sidecars; they keep the settings that they have", err)
	}
}

// know notes what a namespace has, nil that there is no such namespace.
func (p *Publisher) know(namespace string, content *string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if content == nil {
		delete(p.namespaces, namespace)
		return
	}
	p.namespaces[namespace] = *content
}

// gone reports whether the namespace is, or will be in a moment.
func gone(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

func (p *Publisher) apply(ctx context.Context, namespace, content string) error {
	body, err := json.Marshal(&corev1.ConfigMap{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{
			Name: p.options.Name, Namespace: namespace,
			Labels: map[string]string{
				"app.kubernetes.io/name": "rockpool-sidecar", "app.kubernetes.io/component": "settings",
				"app.kubernetes.io/part-of": "rockpool", "app.kubernetes.io/managed-by": FieldManager,
			},
		},
		Data: map[string]string{p.options.Key: content},
	})
	if err != nil {
		return err
	}
	force := true
	return p.client.Verb(http.MethodPatch).SetHeader("Content-Type", string(types.ApplyPatchType)).
		Namespace(namespace).Resource("configmaps").Name(p.options.Name).
		VersionedParams(&metav1.PatchOptions{FieldManager: FieldManager, Force: &force}, metav1.ParameterCodec).
		Body(body).Do(ctx).Error()
}

// tell logs an error when it is another one than the last.
func (p *Publisher) tell(namespace, what string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		delete(p.failing, namespace)
		return
	}
	if p.failing[namespace] != err.Error() {
		p.failing[namespace] = err.Error()
		p.options.Log.Warn(what, zap.String("namespace", namespace), zap.String("configMap", p.options.Name), zap.Error(err))
	}
}
