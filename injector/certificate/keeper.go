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

// A Secret is a [Keeper]'s own if it has this label. Any other is left alone.
const (
	LabelManagedBy = "app.kubernetes.io/managed-by"
	ManagedBy      = "rockpool-injector"
)

const (
	// interval is how often a Keeper looks, and so how late it can be: far below Settle.
	interval = 10 * time.Second
	// retryInterval follows a failure.
	retryInterval = 2 * time.Second
	// attempts bounds how often one look begins anew because another replica was first.
	attempts = 5
)

// Keeper keeps CA and certificate in a Secret, and the CAs in the webhook's configuration. Any
// number of them may work on the same Secret.
type Keeper struct {
	cluster *cluster
	policy  Policy
	log     *zap.Logger
	clock   clock.Clock

	mu      sync.Mutex
	cert    []byte           // what current was made of
	current *tls.Certificate // nil before the first
	failure error            // of the last look; nil if it went well
}

// NewKeeper returns a Keeper that does nothing until [Keeper.Run]. clk may be nil: the system's.
func NewKeeper(config *rest.Config, where Where, policy Policy, log *zap.Logger, clk clock.Clock) (*Keeper, error) {
	if clk == nil {
		clk = clock.RealClock{}
	}
	cluster, err := newCluster(config, where)
	if err != nil {
		return nil, err
	}
	return &Keeper{cluster: cluster, policy: policy, log: log, clock: clk, failure: errors.New("the Secret has not been looked at")}, nil
}

// Run looks after Secret and trust until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	for {
		wait := interval
		if err := k.look(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			wait = retryInterval
		}
		timer := k.clock.NewTimer(wait)
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// Get is for tls.Config.GetCertificate.
func (k *Keeper) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current == nil {
		return nil, errors.New("no certificate yet")
	}
	return k.current, nil
}

// Ready is nil once there is a certificate that the webhook's configuration trusts. What
// fails after that costs nobody an answer as long as that certificate is valid.
func (k *Keeper) Ready() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current == nil {
		return fmt.Errorf("no certificate yet: %w", k.failure)
	}
	return nil
}

// look brings Secret, trust and the certificate in use one step on.
func (k *Keeper) look(ctx context.Context) (err error) {
	for range attempts {
		err = k.attempt(ctx)
		if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			break
		}
	}
	if ctx.Err() == nil {
		k.note(err)
	}
	return err
}

// note logs a failure once, not every two seconds.
func (k *Keeper) note(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		failures.Inc()
		if k.failure == nil || k.failure.Error() != err.Error() {
			k.log.Warn("the certificate cannot be looked after", zap.Error(err), zap.Bool("serving", k.current != nil))
		}
	}
	k.failure = err
}

// attempt is one reading, at most one writing. A conflict means that another replica has written
// meanwhile.
func (k *Keeper) attempt(ctx context.Context) error {
	secret, err := k.cluster.secret(ctx)
	absent := apierrors.IsNotFound(err)
	switch {
	case absent:
		secret = k.cluster.emptySecret()
	case err != nil:
		return err
	case secret.Labels[LabelManagedBy] != ManagedBy:
		return fmt.Errorf("secret %s/%s: it has no label %s: %s, so it is somebody else's; remove it, or name another one with --tls-secret, or use it by --tls-cert-file and --tls-key-file",
			secret.Namespace, secret.Name, LabelManagedBy, ManagedBy)
	}
	now := k.clock.Now()
	change, err := k.policy.Next(secret.Data, now)
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	if change.Step == StepSwitch {
		// The new CA must have been trusted for a while. If somebody has taken it out, the next look
		// switches: a moment is what API servers need to notice.
		changed, err := k.trust(ctx, secret.Data, now)
		if err != nil || changed {
			return err
		}
	}
	if change.Step != StepNone {
		secret.Data = change.Data
		write := k.cluster.updateSecret
		if absent {
			write = k.cluster.createSecret
		}
		if err := write(ctx, secret); err != nil {
			return err
		}
		changes.WithLabelValues(string(change.Step)).Inc()
		k.log.Info("the Secret has changed", zap.String("secret", secret.Name), zap.String("step", string(change.Step)), zap.String("reason", change.Reason))
	}
	if _, err := k.trust(ctx, secret.Data, now); err != nil {
		return err
	}
	return k.use(secret.Data, now)
}

func (k *Keeper) trust(ctx context.Context, data map[string][]byte, now time.Time) (changed bool, err error) {
	changed, err = k.cluster.trust(ctx, func(present []byte) []byte { return k.policy.Bundle(data, present, now) })
	if changed {
		k.log.Info("caBundle set", zap.String("configuration", k.cluster.where.Configuration))
	}
	return changed, err
}

// use serves with the certificate in data from now on, unless the one before is the better one for
// a while.
func (k *Keeper) use(data map[string][]byte, now time.Time) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current != nil && (bytes.Equal(k.cert, data[corev1.TLSCertKey]) || k.policy.premature(data, k.current.Leaf, now)) {
		return nil
	}
	pair, err := tls.X509KeyPair(data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return fmt.Errorf("secret %s: %w", k.cluster.where.Secret, err)
	}
	if k.current != nil && early(pair.Leaf, k.current.Leaf, data, now) {
		return nil
	}
	k.cert, k.current = data[corev1.TLSCertKey], &pair
	inUse(k.log, pair.Leaf)
	return nil
}
