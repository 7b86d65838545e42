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

// DefaultName is the ConfigMap, unless a flag says otherwise.
const DefaultName = "rockpool-cfg"

// eventTimeout bounds the one write of this package.
const eventTimeout = 5 * time.Second

// maxEventMessage is what the API server accepts in the message of an Event.
const maxEventMessage = 1024

// errUnread is until the ConfigMap, or that there is none, is known.
var errUnread = errors.New("the ConfigMap has not been read yet")

// Follower keeps the settings that are in effect: those of the last ConfigMap that was right.
//
// It watches the one object, instead of reading it from a volume: the kubelet takes a minute
// to write a volume anew, and another one on each node, in which replicas would be of
// different minds; and there is somebody to tell, with an Event, what is wrong.
type Follower struct {
	client          rest.Interface
	source          cache.ListerWatcher
	namespace, name string
	base            inject.Params
	log             *zap.Logger
	changed         chan struct{}

	mu      sync.Mutex
	current inject.Params
	missing error // why there is no current; nil once there is
	failing string
}

// NewFollower returns a Follower that knows nothing until [Follower.Run].
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
	return &Follower{client: client, source: source, namespace: namespace, name: name, base: base, log: log, changed: make(chan struct{}, 1), missing: errUnread}, nil
}

// Params returns the settings in effect. An injector that starts with a ConfigMap that is
// wrong has none: pods would else be injected with settings that nobody has chosen.
func (f *Follower) Params() (inject.Params, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.missing != nil {
		return inject.Params{}, fmt.Errorf("ConfigMap %s/%s: %w", f.namespace, f.name, f.missing)
	}
	return f.current, nil
}

// Changed has a value when other settings have come into effect.
func (f *Follower) Changed() <-chan struct{} { return f.changed }

// Run follows the ConfigMap until ctx ends.
func (f *Follower) Run(ctx context.Context) {
	informer := cache.NewSharedInformer(f.source, &corev1.ConfigMap{}, 0)
	failing := ""
	errs := errors.Join(
		informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
			watchFailures.Inc()
			if failing != err.Error() {
				failing = err.Error()
				f.log.Warn("the ConfigMap cannot be watched; the settings in effect stay", zap.String("configMap", f.name), zap.Error(err))
			}
		}),
		second(informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { f.apply(ctx, object.(*corev1.ConfigMap)) },
			UpdateFunc: func(_, object any) { f.apply(ctx, object.(*corev1.ConfigMap)) },
			DeleteFunc: func(any) { f.apply(ctx, nil) },
		})))
	if errs != nil {
		f.log.Error("following the ConfigMap", zap.Error(errs)) // only an informer that has been started refuses
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

// apply brings a ConfigMap into effect, nil that there is none.
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
		f.refuse(ctx, object, err)
		return
	}
	f.mu.Lock()
	f.current, f.missing, f.failing = params, nil, ""
	f.mu.Unlock()
	valid.Set(1)
	readings.WithLabelValues("applied").Inc()
	f.log.Info("settings are in effect", zap.String("configMap", f.name), zap.Bool("exists", object != nil),
		zap.String("image", params.Image), zap.Any("settings", params.Settings))
	if params.Settings["upstream.servers"] == "" {
		f.log.Warn("no upstreams: pods without the annotation rockpool.dev/upstreams reach the API server at the in-cluster address only")
	}
	select {
	case f.changed <- struct{}{}:
	default: // somebody has still to hear of the last one
	}
}

// refuse keeps what is in effect, and tells once what is wrong: in the log, in a metric,
// and to who looks at the ConfigMap.
func (f *Follower) refuse(ctx context.Context, object *corev1.ConfigMap, problem error) {
	valid.Set(0)
	readings.WithLabelValues("refused").Inc()
	f.mu.Lock()
	known := f.failing == problem.Error()
	f.failing = problem.Error()
	if f.missing != nil {
		f.missing = problem
	}
	f.mu.Unlock()
	if known {
		return
	}
	f.log.Error("the ConfigMap is wrong; the settings in effect stay", zap.String("configMap", f.name), zap.Error(problem))
	if object == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	err := f.client.Post().Namespace(f.namespace).Resource("events").Body(eventOf(object, problem)).Do(ctx).Error()
	if err != nil && !apierrors.IsAlreadyExists(err) {
		f.log.Warn("writing an Event about the ConfigMap", zap.Error(err))
	}
}

// eventOf has a name that is the same in all replicas, so that one of them tells.
func eventOf(object *corev1.ConfigMap, problem error) *corev1.Event {
	message := "The settings in effect stay: " + strings.ReplaceAll(problem.Error(), "\n", "; ")
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
