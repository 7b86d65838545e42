// Package publish writes a ConfigMap with the settings of running sidecars to every namespace
// that has had an injected pod, because pods can only mount ConfigMaps of their own namespace.
//
// All replicas watch these ConfigMaps. A change of the settings is written to all namespaces by
// one replica, which [Options.Elect] chooses. A namespace without the ConfigMap gets it from the
// replica that has admitted its first pod: no other one knows the namespace. Each write is a
// server-side apply of the whole content, so the order of writes does not matter. A ConfigMap
// stays when the last pod of its namespace is gone: it is small, and the next pod needs it.
package publish

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
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
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
)

const (
	// RetryInterval is the time after which failed writes are tried again.
	RetryInterval = 10 * time.Second
	// WritesPerSecond limits how fast a change reaches all namespaces: 5,000 of them in 20 s. The
	// API server's own fairness may slow it down.
	WritesPerSecond = 250
	// writers is how many writes are under way at once.
	writers = 16
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
	// Elect runs until its context ends, and calls lead whenever this replica is the one that
	// writes to all namespaces; lead returns when its context ends. Nil: this replica always is.
	Elect func(ctx context.Context, lead func(context.Context))
	// Clock. nil = the system's.
	Clock clock.WithTicker
	// Log is required.
	Log *zap.Logger
}

// Publisher is safe for concurrent use.
type Publisher struct {
	options  Options
	client   rest.Interface
	informer cache.SharedInformer
	wake     chan struct{}
	leading  atomic.Bool

	mu         sync.Mutex
	added      map[string]int    // namespaces of reviewed pods that had no ConfigMap yet, with a number
	next       int               // number of added
	written    map[string]wrote  // the last write to each namespace, until the watch has shown it
	failed     map[string]bool   // namespaces to leave out until the next retry
	lastErrors map[string]string // logged last, by namespace
}

// wrote is a content that was written over an object of this version.
type wrote struct{ version, content string }

// New returns a Publisher that does nothing until [Publisher.Run].
func New(options Options) (*Publisher, error) {
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	if options.Elect == nil {
		options.Elect = func(ctx context.Context, lead func(context.Context)) { lead(ctx) }
	}
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	config := rest.CopyConfig(options.Config)
	config.APIPath, config.GroupVersion = "/api", &corev1.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.QPS, config.Burst = WritesPerSecond, WritesPerSecond
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("client of the API server: %w", err)
	}
	p := &Publisher{
		options: options, client: client, wake: make(chan struct{}, 1),
		added: map[string]int{}, written: map[string]wrote{}, failed: map[string]bool{}, lastErrors: map[string]string{},
	}
	source := cache.NewListWatchFromClient(client, "configmaps", metav1.NamespaceAll, fields.OneTermEqualSelector(metav1.ObjectNameField, options.Name))
	p.informer = cache.NewSharedInformer(source, &corev1.ConfigMap{}, 0)
	if err := p.informer.SetTransform(p.strip); err != nil {
		return nil, err
	}
	if err := p.informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		p.logOnce("", "cannot watch the ConfigMaps of sidecars", err)
	}); err != nil {
		return nil, err
	}
	if _, err := p.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { p.awake() },
		UpdateFunc: func(any, any) { p.awake() },
		DeleteFunc: p.removed,
	}); err != nil {
		return nil, err
	}
	return p, nil
}

// strip keeps of a ConfigMap in memory only what is compared.
func (p *Publisher) strip(object any) (any, error) {
	c, ok := object.(*corev1.ConfigMap)
	if !ok {
		return object, nil
	}
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: c.Name, ResourceVersion: c.ResourceVersion},
		Data:       map[string]string{p.options.Key: c.Data[p.options.Key]},
	}, nil
}

// Add adds a namespace with an injected pod. It does not block.
func (p *Publisher) Add(namespace string) {
	if p.published(namespace) != "" {
		return
	}
	p.mu.Lock()
	if _, waits := p.added[namespace]; !waits {
		p.add(namespace)
	}
	p.mu.Unlock()
	p.awake()
}

// add has the ConfigMap of a namespace written, also if that is just being done. The lock is held.
func (p *Publisher) add(namespace string) {
	p.next++
	p.added[namespace] = p.next
}

func (p *Publisher) awake() {
	select {
	case p.wake <- struct{}{}:
	default: // a wake-up is pending
	}
}

// removed has a ConfigMap that another client has deleted written again. If its namespace is gone
// as well, the write says so.
func (p *Publisher) removed(object any) {
	if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = last.Obj
	}
	if c, ok := object.(*corev1.ConfigMap); ok && p.leading.Load() {
		p.mu.Lock()
		p.add(c.Namespace)
		p.mu.Unlock()
	}
	p.awake()
}

// published returns the version of the ConfigMap in a namespace, "" if there is none.
func (p *Publisher) published(namespace string) (version string) {
	object, ok, err := p.informer.GetStore().GetByKey(namespace + "/" + p.options.Name)
	if err != nil || !ok {
		return ""
	}
	return object.(*corev1.ConfigMap).ResourceVersion
}

// Run publishes until ctx ends.
func (p *Publisher) Run(ctx context.Context) {
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { p.informer.RunWithContext(ctx) })
	parts.Go(func() { p.options.Elect(ctx, p.lead) })
	if !cache.WaitForCacheSync(ctx.Done(), p.informer.HasSynced) {
		p.writeLast(ctx)
		return
	}
	retry := p.options.Clock.NewTicker(RetryInterval)
	defer retry.Stop()
	for {
		p.write(ctx)
		select {
		case <-ctx.Done():
			p.writeLast(ctx)
			return
		case <-p.wake:
		case <-p.options.Changed:
			p.retryFailed()
		case <-retry.C():
			p.retryFailed()
		}
	}
}

func (p *Publisher) retryFailed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.failed)
}

// lead has this replica write to all namespaces until ctx ends.
func (p *Publisher) lead(ctx context.Context) {
	p.leading.Store(true)
	leading.Set(1)
	p.awake()
	<-ctx.Done()
	p.leading.Store(false)
	leading.Set(0)
}

// writeLast writes for pods that were admitted a moment before the end: other replicas do not know
// their namespaces.
func (p *Publisher) writeLast(ctx context.Context) {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	p.write(last)
}

// due returns the namespaces to write to: those of reviewed pods without the ConfigMap and, in the
// replica that is elected, all with another content.
func (p *Publisher) due(content string) []string {
	objects := p.informer.GetStore().List()
	published.Set(float64(len(objects)))
	p.mu.Lock()
	defer p.mu.Unlock()
	var due []string
	for namespace := range p.added {
		if p.published(namespace) != "" {
			delete(p.added, namespace)
		} else if !p.failed[namespace] {
			due = append(due, namespace)
		}
	}
	if !p.leading.Load() {
		return due
	}
	for _, object := range objects {
		c := object.(*corev1.ConfigMap)
		last := p.written[c.Namespace]
		if last.version != c.ResourceVersion {
			delete(p.written, c.Namespace)
		}
		if c.Data[p.options.Key] != content && !p.failed[c.Namespace] && last != (wrote{c.ResourceVersion, content}) {
			due = append(due, c.Namespace)
		}
	}
	return due
}

// write applies the content to the namespaces that are due.
func (p *Publisher) write(ctx context.Context) {
	content, err := p.options.Content()
	if err != nil {
		return // its owner reports the error
	}
	work := make(chan string)
	var workers sync.WaitGroup
	for range writers {
		workers.Go(func() {
			for namespace := range work {
				p.writeTo(ctx, namespace, content)
			}
		})
	}
	for _, namespace := range p.due(content) {
		if ctx.Err() != nil {
			break
		}
		work <- namespace
	}
	close(work)
	workers.Wait()
}

func (p *Publisher) writeTo(ctx context.Context, namespace, content string) {
	version := p.published(namespace)
	p.mu.Lock()
	number := p.added[namespace]
	p.mu.Unlock()
	err := p.apply(ctx, namespace, content)
	switch {
	case err == nil:
		writes.WithLabelValues("applied").Inc()
		p.note(namespace, number, version, content)
	case namespaceGone(err):
		p.note(namespace, number, version, content)
		err = nil
	case ctx.Err() != nil:
		return
	default:
		writes.WithLabelValues("failed").Inc()
		p.mu.Lock()
		p.failed[namespace] = true
		p.mu.Unlock()
	}
	p.logOnce(namespace, "cannot write the ConfigMap of sidecars; they keep their settings", err)
}

// note notes that there is nothing more to write over an object of this version, nor for what was
// added by this number: the object may have been deleted since.
func (p *Publisher) note(namespace string, number int, version, content string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.added[namespace] == number {
		delete(p.added, namespace)
	}
	if version != "" {
		p.written[namespace] = wrote{version, content}
	}
}

// namespaceGone reports whether the namespace is deleted or terminating.
func namespaceGone(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

func (p *Publisher) apply(ctx context.Context, namespace, content string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
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
