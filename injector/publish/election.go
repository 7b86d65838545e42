package publish

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
)

// The times of the Lease. When the elected replica dies, another one takes over after
// leaseDuration, and a change still reaches all namespaces in 30 s.
const (
	leaseDuration = 8 * time.Second
	renewDeadline = 5 * time.Second
	renewInterval = 2 * time.Second
)

// Election chooses one of several replicas by a Lease. It is not that of client-go, whose imports
// would make the image, which every node pulls, larger by half.
//
// A replica takes a Lease that it has seen unchanged for leaseDuration by its own clock, so clocks
// need not agree. It stops to lead when it could not renew the Lease for renewDeadline. Two may lead
// for a moment when a clock is stopped; the writes of a Publisher allow that.
type Election struct {
	Client          rest.Interface // of group coordination.k8s.io/v1
	Namespace, Name string
	Identity        string // different for each replica
	Clock           clock.WithTicker
	Log             *zap.Logger

	seen   coordinationv1.LeaseSpec // of the Lease, when it was last different
	seenAt time.Time
}

// NewElection returns an Election with the system's clock.
func NewElection(config *rest.Config, namespace, name, identity string, log *zap.Logger) (*Election, error) {
	scheme := runtime.NewScheme()
	if err := coordinationv1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	metav1.AddToGroupVersion(scheme, coordinationv1.SchemeGroupVersion)
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion, config.Timeout = "/apis", &coordinationv1.SchemeGroupVersion, renewDeadline
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("client of the API server: %w", err)
	}
	return &Election{Client: client, Namespace: namespace, Name: name, Identity: identity, Clock: clock.RealClock{}, Log: log}, nil
}

// Run takes part until ctx ends, and calls lead whenever this replica is elected; lead returns when
// its context ends. It is for [Options.Elect].
func (e *Election) Run(ctx context.Context, lead func(context.Context)) {
	ticker := e.Clock.NewTicker(renewInterval)
	defer ticker.Stop()
	var renewed time.Time
	stop := func() {}
	elected := false
	lastError := ""
	for {
		held, err := e.attempt(ctx)
		switch {
		case held:
			renewed = e.Clock.Now()
			if !elected {
				elected = true
				e.Log.Info("this replica writes changes of the settings to all namespaces")
				stop = start(ctx, lead)
			}
		case elected && (err == nil || e.Clock.Since(renewed) >= renewDeadline):
			e.Log.Info("another replica writes changes of the settings to all namespaces")
			stop()
			elected = false
		}
		if err != nil && ctx.Err() == nil && err.Error() != lastError {
			lastError = err.Error()
			e.Log.Warn("cannot take part in the election of the replica that writes changes of the settings", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			stop()
			if elected {
				e.release(ctx)
			}
			return
		case <-ticker.C():
		}
	}
}

// start runs f until the returned function is called, which waits for its end.
func start(ctx context.Context, f func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { f(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

// attempt takes or renews the Lease, and reports whether this replica holds it. Without an error,
// false means that another one does.
func (e *Election) attempt(ctx context.Context) (bool, error) {
	var lease coordinationv1.Lease
	err := e.Client.Get().Namespace(e.Namespace).Resource("leases").Name(e.Name).Do(ctx).Into(&lease)
	now := e.Clock.Now()
	if apierrors.IsNotFound(err) {
		lease.Namespace, lease.Name = e.Namespace, e.Name
		e.hold(&lease, now)
		err = e.Client.Post().Namespace(e.Namespace).Resource("leases").Body(&lease).Do(ctx).Error()
		return err == nil, ignoreRace(err)
	}
	if err != nil {
		return false, err
	}
	if !sameSpec(&lease.Spec, &e.seen) || e.seenAt.IsZero() {
		e.seen, e.seenAt = *lease.Spec.DeepCopy(), now
	}
	holder := ptr.Deref(lease.Spec.HolderIdentity, "")
	if holder != "" && holder != e.Identity && now.Sub(e.seenAt) < leaseDuration {
		return false, nil
	}
	e.hold(&lease, now)
	err = e.update(ctx, &lease)
	return err == nil, ignoreRace(err)
}

// hold makes the Lease this replica's.
func (e *Election) hold(lease *coordinationv1.Lease, now time.Time) {
	if ptr.Deref(lease.Spec.HolderIdentity, "") != e.Identity {
		lease.Spec.AcquireTime = &metav1.MicroTime{Time: now}
		lease.Spec.LeaseTransitions = ptr.To(ptr.Deref(lease.Spec.LeaseTransitions, 0) + 1)
	}
	lease.Spec.HolderIdentity = &e.Identity
	lease.Spec.LeaseDurationSeconds = ptr.To(int32(leaseDuration / time.Second))
	lease.Spec.RenewTime = &metav1.MicroTime{Time: now}
}

func (e *Election) update(ctx context.Context, lease *coordinationv1.Lease) error {
	return e.Client.Put().Namespace(e.Namespace).Resource("leases").Name(e.Name).Body(lease).Do(ctx).Error()
}

// release lets another replica take the Lease at once.
func (e *Election) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewDeadline)
	defer cancel()
	var lease coordinationv1.Lease
	err := e.Client.Get().Namespace(e.Namespace).Resource("leases").Name(e.Name).Do(ctx).Into(&lease)
	if err == nil && ptr.Deref(lease.Spec.HolderIdentity, "") == e.Identity {
		lease.Spec.HolderIdentity = ptr.To("")
		err = ignoreRace(e.update(ctx, &lease))
	}
	if err != nil {
		e.Log.Warn("cannot release the Lease; another replica takes it when it has expired", zap.Error(err))
	}
}

// ignoreRace returns nil for the error of a replica that was too late.
func ignoreRace(err error) error {
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func sameSpec(a, b *coordinationv1.LeaseSpec) bool {
	return ptr.Equal(a.HolderIdentity, b.HolderIdentity) && a.RenewTime.Equal(b.RenewTime)
}
