package settings

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"rockpool.dev/injector/inject"
)

// DefaultName is the default name of the ConfigMap.
const DefaultName = "rockpool-cfg"

// eventTimeout bounds the one write of this package.
const eventTimeout = 5 * time.Second

// maxEventMessage is the longest message of an Event that the API server accepts.
const maxEventMessage = 1024

// errUnread is the error until the first read of the ConfigMap, which may be missing.
var errUnread = errors.New("the ConfigMap has not been read yet")

// Follower holds the settings in effect: those of the last valid ConfigMap.
//
// It watches the object instead of a volume with it. The kubelet updates a volume after about a
// minute, at another time on each node, and meanwhile replicas would differ. Also, an Event can
// report an invalid object.
type Follower struct {
	client          rest.Interface
	source          cache.ListerWatcher
	namespace, name string
	base            inject.Params
	log             *zap.Logger
	changed         chan struct{}

	mu          sync.Mutex
	current     inject.Params
	unavailable error // why current is not set; nil once it is
	lastError   string
}

// NewFollower returns a Follower without settings until [Follower.Run].
func NewFollower(config *rest.Config, namespace, name string, base inject.Params, log *zap.Logger) (*Follower, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion = "/api", &corev1.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("client of the API server: %w", err)
	}
	source := cache.NewListWatchFromClient(client, "configmaps", namespace, fields.OneTermEqualSelector(metav1.ObjectNameField, name))
	return &Follower{
		client: client, source: source, namespace: namespace, name: name, base: base, log: log,
		changed: make(chan struct{}, 1), unavailable: errUnread,
	}, nil
}

// Params returns the settings in effect. If the ConfigMap is invalid when the injector starts,
// there are none: otherwise pods would get settings that no one has chosen.
func (f *Follower) Params() (inject.Params, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unavailable != nil {
		return inject.Params{}, fmt.Errorf("ConfigMap %s/%s: %w", f.namespace, f.name, f.unavailable)
	}
	return f.current, nil
}

// Changed receives a value when the settings in effect change.
func (f *Follower) Changed() <-chan struct{} { return f.changed }

// Run follows the ConfigMap until ctx ends.
func (f *Follower) Run(ctx context.Context) {
	informer := cache.NewSharedInformer(f.source, &corev1.ConfigMap{}, 0)
	lastError := ""
	errs := errors.Join(
		informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
			watchFailures.Inc()
			if lastError != err.Error() {
				lastError = err.Error()
				f.log.Warn("cannot watch the ConfigMap; keeping the settings in effect",
					zap.String("configMap", f.name), zap.Error(err))
			}
		}),
		second(informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { f.apply(ctx, object.(*corev1.ConfigMap)) },
			UpdateFunc: func(_, object any) { f.apply(ctx, object.(*corev1.ConfigMap)) },
			DeleteFunc: func(any) { f.apply(ctx, nil) },
		})))
	if errs != nil {
		// Only an informer that runs already rejects handlers.
		f.log.Error("cannot watch the ConfigMap", zap.Error(errs))
		return
	}
	var running sync.WaitGroup
	running.Go(func() { informer.RunWithContext(ctx) })
	if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) && len(informer.GetStore().List()) == 0 {
		f.apply(ctx, nil)
	}
	running.Wait()
}

func second[T any](_ T, err error) error { return err }

// apply puts a ConfigMap into effect. nil means that the ConfigMap does not exist.
func (f *Follower) apply(ctx context.Context, object *corev1.ConfigMap) {
	var data map[string]string
	if object != nil {
		data = object.Data
	}
	params, err := Apply(f.base, data)
	if err == nil && object != nil && len(object.BinaryData) > 0 {
		err = errors.New("binaryData: nothing is allowed there")
	}
	if err != nil {
		f.reject(ctx, object, err)
		return
	}
	f.mu.Lock()
	f.current, f.unavailable, f.lastError = params, nil, ""
	f.mu.Unlock()
	valid.Set(1)
	readings.WithLabelValues("applied").Inc()
	f.log.Info("settings are in effect", zap.String("configMap", f.name), zap.Bool("exists", object != nil),
		zap.String("image", params.Image), zap.Any("settings", params.Settings))
	if params.Settings["upstream.servers"] == "" {
		f.log.Warn("no upstreams: pods without the annotation rockpool.dev/upstreams " +
			"reach the API server at the in-cluster address only")
	}
	select {
	case f.changed <- struct{}{}:
	default: // the last value is still unread
	}
}

// reject keeps the settings in effect. It reports the problem once: in the log, in a metric, and
// in an Event at the ConfigMap.
func (f *Follower) reject(ctx context.Context, object *corev1.ConfigMap, problem error) {
	valid.Set(0)
	readings.WithLabelValues("refused").Inc()
	f.mu.Lock()
	reported := f.lastError == problem.Error()
	f.lastError = problem.Error()
	if f.unavailable != nil {
		f.unavailable = problem
	}
	f.mu.Unlock()
	if reported {
		return
	}
	f.log.Error("invalid ConfigMap; keeping the settings in effect", zap.String("configMap", f.name), zap.Error(problem))
	if object == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	err := f.client.Post().Namespace(f.namespace).Resource("events").Body(eventOf(object, problem)).Do(ctx).Error()
	if err != nil && !apierrors.IsAlreadyExists(err) {
		f.log.Warn("cannot write an Event about the ConfigMap", zap.Error(err))
	}
}

// eventOf returns an Event with the same name in all replicas, so that only one is created.
func eventOf(object *corev1.ConfigMap, problem error) *corev1.Event {
	message := "Invalid ConfigMap; keeping the settings in effect: " + strings.ReplaceAll(problem.Error(), "\n", "; ")
	if len(message) > maxEventMessage {
		message = message[:maxEventMessage-3] + "..."
	}
	now := metav1.Now()
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: object.Namespace, Name: object.Name + "." + object.ResourceVersion},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "v1", Kind: "ConfigMap", Namespace: object.Namespace, Name: object.Name, UID: object.UID, ResourceVersion: object.ResourceVersion,
		},
		Type: corev1.EventTypeWarning, Reason: "InvalidConfiguration", Message: message,
		Source: corev1.EventSource{Component: "rockpool-injector"}, FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}
}
