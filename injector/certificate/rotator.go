package certificate

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
)

// A [Rotator] manages only a Secret with this label. It leaves any other alone.
const (
	LabelManagedBy = "app.kubernetes.io/managed-by"
	ManagedBy      = "rockpool-injector"
)

const (
	// interval is the time between two reconciliations, and the longest delay: far below Settle.
	interval = 10 * time.Second
	// retryInterval follows a failure.
	retryInterval = 2 * time.Second
	// attempts limits how often a reconciliation restarts because another replica wrote first.
	attempts = 5
)

// Rotator manages CA and certificate in a Secret, and the CAs in the webhook's configuration.
// Several replicas may manage the same Secret.
type Rotator struct {
	client *client
	policy Policy
	log    *zap.Logger
	clock  clock.Clock

	mu      sync.Mutex
	cert    []byte           // the PEM that current was made from
	current *tls.Certificate // nil until there is one
	failure error            // of the last reconciliation; nil = it succeeded
}

// NewRotator returns a Rotator that does nothing until [Rotator.Run]. A nil clk is the system's.
func NewRotator(config *rest.Config, objects ObjectNames, policy Policy, log *zap.Logger, clk clock.Clock) (*Rotator, error) {
	if clk == nil {
		clk = clock.RealClock{}
	}
	c, err := newClient(config, objects)
	if err != nil {
		return nil, err
	}
	return &Rotator{client: c, policy: policy, log: log, clock: clk, failure: errors.New("the Secret has not been read yet")}, nil
}

// Run manages Secret and caBundle until ctx ends.
func (r *Rotator) Run(ctx context.Context) {
	for {
		wait := interval
		if err := r.reconcile(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			wait = retryInterval
		}
		timer := r.clock.NewTimer(wait)
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// Get is for tls.Config.GetCertificate.
func (r *Rotator) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current == nil {
		return nil, errors.New("no certificate yet")
	}
	return r.current, nil
}

// Ready returns nil once there is a certificate that the webhook's configuration trusts. Later
// failures do not count: the webhook works as long as that certificate is valid.
func (r *Rotator) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current == nil {
		return fmt.Errorf("no certificate yet: %w", r.failure)
	}
	return nil
}

// reconcile moves Secret, caBundle and the certificate in use one step forward.
func (r *Rotator) reconcile(ctx context.Context) (err error) {
	for range attempts {
		err = r.reconcileOnce(ctx)
		if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			break
		}
	}
	if ctx.Err() == nil {
		r.record(err)
	}
	return err
}

// record stores the result of a reconciliation, and logs a failure once, not every two seconds.
func (r *Rotator) record(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		failures.Inc()
		if r.failure == nil || r.failure.Error() != err.Error() {
			r.log.Warn("cannot manage the certificate; retrying", zap.Error(err), zap.Bool("serving", r.current != nil))
		}
	}
	r.failure = err
}

// reconcileOnce reads the Secret and writes it at most once. A conflict means that another
// replica has written meanwhile.
func (r *Rotator) reconcileOnce(ctx context.Context) error {
	secret, err := r.client.secret(ctx)
	absent := apierrors.IsNotFound(err)
	switch {
	case absent:
		secret = r.client.emptySecret()
	case err != nil:
		return err
	case secret.Labels[LabelManagedBy] != ManagedBy:
		return fmt.Errorf("secret %s/%s: without the label %s: %s it is not the injector's; remove it, or name another one with "+
			"--tls-secret, or use its certificate with --tls-cert-file and --tls-key-file",
			secret.Namespace, secret.Name, LabelManagedBy, ManagedBy)
	}
	now := r.clock.Now()
	change, err := r.policy.Next(secret.Data, now)
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	if change.Step == StepSwitch {
		// API servers must trust the new CA before the switch. If another client has removed it
		// from the bundle, put it back, and let the next reconciliation switch: API servers
		// notice a bundle within moments.
		changed, err := r.trust(ctx, secret.Data, now)
		if err != nil || changed {
			return err
		}
	}
	if change.Step != StepNone {
		secret.Data = change.Data
		write := r.client.updateSecret
		if absent {
			write = r.client.createSecret
		}
		if err := write(ctx, secret); err != nil {
			return err
		}
		changes.WithLabelValues(string(change.Step)).Inc()
		r.log.Info("Secret updated", zap.String("secret", secret.Name), zap.String("step", string(change.Step)),
			zap.String("reason", change.Reason))
	}
	if _, err := r.trust(ctx, secret.Data, now); err != nil {
		return err
	}
	return r.use(secret.Data, now)
}

func (r *Rotator) trust(ctx context.Context, data map[string][]byte, now time.Time) (changed bool, err error) {
	changed, err = r.client.trust(ctx, func(present []byte) []byte { return r.policy.Bundle(data, present, now) })
	if changed {
		r.log.Info("caBundle set", zap.String("configuration", r.client.objects.Configuration))
	}
	return changed, err
}

// use makes the certificate in data the current one, unless API servers may not accept it yet.
func (r *Rotator) use(data map[string][]byte, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current != nil && (bytes.Equal(r.cert, data[corev1.TLSCertKey]) || r.policy.keepsServing(data, r.current.Leaf, now)) {
		return nil
	}
	pair, err := tls.X509KeyPair(data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return fmt.Errorf("secret %s: %w", r.client.objects.Secret, err)
	}
	if r.current != nil && notYetValid(pair.Leaf, r.current.Leaf, data, now) {
		return nil
	}
	r.cert, r.current = data[corev1.TLSCertKey], &pair
	logInUse(r.log, pair.Leaf)
	return nil
}
