// Package publish writes a ConfigMap with the settings of running sidecars to every namespace
// that has had an injected pod, because pods can only mount ConfigMaps of their own namespace.
//
// All replicas of the injector do the same, without a leader. Each writes the same settings by
// server-side apply, so the order of writes does not matter. A ConfigMap stays when the last
// pod of its namespace is gone: it is small, and the next pod needs it.
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
	// DefaultInterval is how often all ConfigMaps are read, because another client may have
	// changed or removed one. Old and new replicas with different settings, during an update of
	// the injector, overwrite each other no more often than that.
	DefaultInterval = 30 * time.Second
	// callTimeout bounds each call of the API server.
	callTimeout = 10 * time.Second
	// FieldManager owns the applied fields.
	FieldManager = "rockpool-injector"
)

// Options of a [Publisher].
type Options struct {
	// Config of the API server's client.
	Config *rest.Config
	// Name of the ConfigMaps, and the key in them.
	Name, Key string
	// Content returns the present content of the key, or an error if it is unknown.
	Content func() (string, error)
	// Changed receives a value when Content changes.
	Changed <-chan struct{}
	// Interval between two reads of all ConfigMaps. 0 = [DefaultInterval].
	Interval time.Duration
	// Clock. nil = the system's.
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
	namespaces map[string]string // the recorded content of each; "" = must be written
	lastErrors map[string]string // logged last, by namespace
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
	return &Publisher{
		options: options, client: client, wake: make(chan struct{}, 1),
		namespaces: map[string]string{}, lastErrors: map[string]string{},
	}, nil
}

// Add adds a namespace with an injected pod. It does not block.
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
		default: // a wake-up is pending
		}
	}
}

// Run publishes until ctx ends.
func (p *Publisher) Run(ctx context.Context) {
	ticker := p.options.Clock.NewTicker(p.options.Interval)
	defer ticker.Stop()
	p.refresh(ctx)
	for {
		p.write(ctx)
		select {
		case <-ctx.Done():
			// Other replicas may not know the namespace of a pod admitted a moment ago.
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
			defer cancel()
			p.write(last)
			return
		case <-p.wake:
		case <-p.options.Changed:
		case <-ticker.C():
			p.refresh(ctx)
		}
	}
}

// refresh reads the ConfigMaps of all namespaces, which include those from before this process.
func (p *Publisher) refresh(ctx context.Context) {
	var list corev1.ConfigMapList
	err := p.client.Get().Resource("configmaps").
		VersionedParams(&metav1.ListOptions{
			FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, p.options.Name).String(), ResourceVersion: "0",
		}, metav1.ParameterCodec).Do(ctx).Into(&list)
	p.logOnce("", "cannot read the ConfigMaps of sidecars", err)
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

// write applies the content to the namespaces whose recorded content differs.
func (p *Publisher) write(ctx context.Context) {
	content, err := p.options.Content()
	if err != nil {
		return // its owner reports the error
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
			p.setContent(namespace, &content)
		case namespaceGone(err):
			p.setContent(namespace, nil)
			err = nil
		case ctx.Err() != nil:
			return
		default:
			writes.WithLabelValues("failed").Inc()
		}
		p.logOnce(namespace, "cannot write the ConfigMap of sidecars; they keep their settings", err)
	}
}

// setContent records the content in a namespace. nil means that the namespace does not exist.
func (p *Publisher) setContent(namespace string, content *string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if content == nil {
		delete(p.namespaces, namespace)
		return
	}
	p.namespaces[namespace] = *content
}

// namespaceGone reports whether the namespace is deleted or terminating.
func namespaceGone(err error) bool {
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

// logOnce logs an error unless it is the same as the last one of the namespace.
func (p *Publisher) logOnce(namespace, message string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		delete(p.lastErrors, namespace)
		return
	}
	if p.lastErrors[namespace] != err.Error() {
		p.lastErrors[namespace] = err.Error()
		p.options.Log.Warn(message, zap.String("namespace", namespace), zap.String("configMap", p.options.Name),
			zap.Error(err))
	}
}
