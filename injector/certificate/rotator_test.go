package certificate

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func rotator(t *testing.T, a *api, p Policy, clk *clocktesting.FakeClock, log *zap.Logger) *Rotator {
	t.Helper()
	r, err := NewRotator(a.restConfig(), objects, p, log, clk)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// trusts returns nil if an API server with this bundle accepts the certificate of r.
func trusts(r *Rotator, bundle []byte, now time.Time) error {
	cert, err := r.Get(nil)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	_, err = cert.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: policy.Names[0], CurrentTime: now})
	return err
}

func TestTheFirstReconciliationMakesSecretAndBundle(t *testing.T) {
	a := newAPI(t)
	clk := clocktesting.NewFakeClock(start)
	r := rotator(t, a, policy, clk, zap.NewNop())
	if r.Ready() == nil {
		t.Error("ready before the first reconciliation")
	}
	if err := r.reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Ready(); err != nil {
		t.Error(err)
	}
	for i, ours := range []bool{true, false, true} {
		if got := trusts(r, a.bundle(i), start) == nil; got != ours {
			t.Errorf("webhook %d trusts the certificate: %t", i, got)
		}
	}
	if a.secret.Type != corev1.SecretTypeTLS || a.secret.Labels[LabelManagedBy] != ManagedBy {
		t.Errorf("the Secret is a %s with %v", a.secret.Type, a.secret.Labels)
	}
	if err := r.reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"secret", "caBundle"}; !slices.Equal(a.writes, want) {
		t.Errorf("writes %v, want %v", a.writes, want)
	}

	// A person has applied a manifest with an empty bundle.
	a.mu.Lock()
	a.config.Webhooks[2].ClientConfig.CABundle = nil
	a.mu.Unlock()
	if err := r.reconcile(t.Context()); err != nil || trusts(r, a.bundle(2), start) != nil {
		t.Errorf("the bundle is not set again: %v", err)
	}
}

func TestReplicasThatRaceEndWithOneCertificate(t *testing.T) {
	for _, tt := range []struct {
		name   string
		rounds []time.Duration // since start, by one replica
		race   time.Duration   // then all of them
	}{
		{"at the first start", nil, 0},
		{"at a renewal", []time.Duration{0}, 61 * day},
		{"at the beginning of a new CA", []time.Duration{0, 540 * day}, 551 * day},
		{"at the switch to it", []time.Duration{0, 540 * day, 551 * day}, 552 * day},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAPI(t)
			clk := clocktesting.NewFakeClock(start)
			before := rotator(t, a, policy, clk, zap.NewNop())
			for _, at := range tt.rounds {
				clk.SetTime(start.Add(at))
				if err := before.reconcile(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			clk.SetTime(start.Add(tt.race))
			a.writes = nil
			const replicas = 4
			var barrier sync.WaitGroup // all replicas read before one writes
			barrier.Add(replicas)
			var once [replicas]sync.Once
			var group sync.WaitGroup
			rotators := make([]*Rotator, replicas)
			for i := range rotators {
				rotators[i] = rotator(t, a, policy, clk, zap.NewNop())
				rotators[i].clock = gate{clk, func() { once[i].Do(func() { barrier.Done(); barrier.Wait() }) }}
				group.Go(func() {
					if err := rotators[i].reconcile(context.Background()); err != nil {
						t.Error(err)
					}
				})
			}
			group.Wait()
			first, err := rotators[0].Get(nil)
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range rotators {
				if got, err := r.Get(nil); err != nil || !got.Leaf.Equal(first.Leaf) {
					t.Errorf("replica %d serves another certificate: %v", i, err)
				}
				if err := trusts(r, a.bundle(0), clk.Now()); err != nil {
					t.Errorf("replica %d is not trusted: %v", i, err)
				}
			}
			if n := len(slices.DeleteFunc(a.writes, func(w string) bool { return w != "secret" })); n != 1 {
				t.Errorf("the Secret was written %d times", n)
			}
		})
	}
}

// gate is a clock that blocks its caller, which asks for the time after reading the Secret.
type gate struct {
	*clocktesting.FakeClock
	hold func()
}

func (g gate) Now() time.Time { g.hold(); return g.FakeClock.Now() }

func TestASecretOfAnotherProgramIsLeftAlone(t *testing.T) {
	a := newAPI(t)
	a.edit(func(*corev1.Secret) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: objects.Namespace, Name: objects.Secret}, Data: map[string][]byte{"password": []byte("hush")}}
	})
	before := a.secret.DeepCopy()
	core, logs := observer.New(zap.DebugLevel)
	r := rotator(t, a, policy, clocktesting.NewFakeClock(start), zap.New(core))
	for range 3 {
		if err := r.reconcile(t.Context()); err == nil {
			t.Fatal("no error")
		}
	}
	err := r.Ready()
	for _, want := range []string{"rockpool-system/certificate", LabelManagedBy, "--tls-secret", "--tls-cert-file"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if len(a.writes) != 0 || !reflect.DeepEqual(before, a.secret) {
		t.Errorf("writes %v", a.writes)
	}
	if logs.Len() != 1 {
		t.Errorf("%d log lines for the same failure", logs.Len())
	}
	a.edit(func(*corev1.Secret) *corev1.Secret { return nil })
	if err := r.reconcile(t.Context()); err != nil || r.Ready() != nil {
		t.Errorf("after it was removed: %v", err)
	}
}

func TestTheCertificateStaysDuringFailures(t *testing.T) {
	a := newAPI(t)
	clk := clocktesting.NewFakeClock(start)
	r := rotator(t, a, policy, clk, zap.NewNop())
	deny := func(verb string) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.before = func(call string) int {
			if verb != "" && strings.HasPrefix(call, verb) {
				return http.StatusServiceUnavailable
			}
			return 0
		}
	}
	deny("PATCH")
	if err := r.reconcile(t.Context()); err == nil || r.Ready() == nil {
		t.Errorf("ready although the bundle could not be set: %v", err)
	}
	deny("")
	if err := r.reconcile(t.Context()); err != nil || r.Ready() != nil {
		t.Fatalf("then: %v", err)
	}
	before, _ := r.Get(nil)
	clk.Step(61 * day)
	for _, verb := range []string{"GET", "PUT"} {
		deny(verb)
		if err := r.reconcile(t.Context()); err == nil {
			t.Errorf("%s fails, and there is no error", verb)
		}
		if now, err := r.Get(nil); err != nil || now != before || r.Ready() != nil {
			t.Errorf("%s fails: another certificate, or none: %v", verb, err)
		}
	}
	deny("")
	if err := r.reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now, _ := r.Get(nil); now == before || trusts(r, a.bundle(0), clk.Now()) != nil {
		t.Error("not renewed, or not trusted")
	}

	a.mu.Lock()
	a.config.Webhooks = a.config.Webhooks[1:2]
	a.mu.Unlock()
	if err := r.reconcile(t.Context()); err == nil || !strings.Contains(err.Error(), "none of its webhooks calls the service rockpool-system/rockpool-injector") {
		t.Errorf("a configuration without our webhook: %v", err)
	}
}

func TestANewCAIsNotUsedBeforeItIsTrusted(t *testing.T) {
	a := newAPI(t)
	clk := clocktesting.NewFakeClock(start)
	r := rotator(t, a, policy, clk, zap.NewNop())
	if err := r.reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := a.bundle(0)
	clk.Step(600 * day)
	for range 2 { // a new certificate, because the first has expired, and a new CA
		if err := r.reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	served, _ := r.Get(nil)
	clk.Step(policy.Settle)
	a.mu.Lock()
	a.config.Webhooks[0].ClientConfig.CABundle = before // another client has removed the new CA
	a.mu.Unlock()
	if err := r.reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now, _ := r.Get(nil); now != served || len(decodeAuthorities(a.bundle(0), clk.Now())) != 2 {
		t.Error("the first reconciliation must only restore the trust in the new CA")
	}
	if err := r.reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now, _ := r.Get(nil); now == served || now.Leaf.Issuer.String() == served.Leaf.Issuer.String() {
		t.Error("the second reconciliation has not switched")
	}
}

func TestAReplicaWithAFastClockDoesNotBreakTheOthers(t *testing.T) {
	a := newAPI(t)
	clk, ahead := clocktesting.NewFakeClock(start), clocktesting.NewFakeClock(start)
	r, other := rotator(t, a, policy, clk, zap.NewNop()), rotator(t, a, policy, ahead, zap.NewNop())
	reconcile := func(r *Rotator) {
		t.Helper()
		if err := r.reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	reconcile(r)
	first, _ := r.Get(nil)
	clk.Step(50 * day)
	ahead.Step(65 * day) // time to renew, by this clock
	reconcile(other)
	if made, _ := other.Get(nil); made == nil || made.Leaf.Equal(first.Leaf) {
		t.Fatal("the other replica has not renewed: this test proves nothing")
	}
	reconcile(r)
	if err := trusts(r, a.bundle(0), clk.Now()); err != nil {
		t.Error(err)
	}
	clk.Step(15 * day)
	reconcile(r)
	if now, _ := r.Get(nil); now == first {
		t.Error("the new certificate is never used")
	}
}

func TestRunFollowsTheSecret(t *testing.T) {
	a := newAPI(t)
	clk := clocktesting.NewFakeClock(start)
	r := rotator(t, a, policy, clk, zap.NewNop())
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { r.Run(ctx) })
	until := func(what string, f func() bool) {
		t.Helper()
		deadline := time.After(10 * time.Second)
		for !f() {
			select {
			case <-deadline:
				t.Fatal(what)
			case <-time.After(time.Millisecond):
			}
		}
	}
	until("it does not become ready", func() bool { return r.Ready() == nil })
	until("it does not wait", clk.HasWaiters)
	first, _ := r.Get(nil)
	// Another replica has renewed.
	a.edit(func(s *corev1.Secret) *corev1.Secret {
		s.Data = with(s.Data, corev1.TLSCertKey, nil)
		change, err := policy.Next(s.Data, start)
		if err != nil {
			t.Error(err)
		}
		s.Data = change.Data
		return s
	})
	clk.Step(interval)
	until("it does not take the new certificate", func() bool { c, _ := r.Get(nil); return c != first })
	until("it does not wait", clk.HasWaiters)
	cancel()
	group.Wait()
}

// TestEveryReplicaIsAlwaysTrusted lets three replicas manage short-lived certificates for two
// days. They reconcile at random times, the Secret is sometimes damaged or deleted, and API
// servers notice a bundle late.
func TestEveryReplicaIsAlwaysTrusted(t *testing.T) {
	p := policy
	p.CAValidity, p.CARenewal, p.Validity, p.Renewal, p.Settle = 20*time.Hour, 9*time.Hour, 6*time.Hour, 2*time.Hour, 30*time.Minute
	a := newAPI(t)
	clk := clocktesting.NewFakeClock(start)
	core, logs := observer.New(zap.InfoLevel)
	random := rand.New(rand.NewPCG(5, 3))
	rotators := make([]*Rotator, 3)
	for i := range rotators {
		rotators[i] = rotator(t, a, p, clk, zap.New(core))
		if err := rotators[i].reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	type seen struct {
		bundle []byte
		at     time.Time
	}
	// The bundles of the last minute: an API server may still use any of them.
	history := []seen{{a.bundle(0), start}}
	damaged := start
	for clk.Now().Before(start.Add(2 * day)) {
		clk.Step(time.Duration(random.Int64N(int64(6 * time.Minute))))
		now := clk.Now()
		if now.Sub(damaged) > 3*p.Settle && random.IntN(40) == 0 {
			damaged = now
			a.edit(func(s *corev1.Secret) *corev1.Secret {
				if s == nil || random.IntN(5) == 0 {
					return nil
				}
				key := []string{KeyCA, KeyCAKey, corev1.TLSCertKey, corev1.TLSPrivateKeyKey}[random.IntN(4)]
				s.Data = with(s.Data, key, s.Data[key][:random.IntN(len(s.Data[key]))])
				return s
			})
		}
		for _, r := range rotators {
			if random.IntN(2) == 0 {
				if err := r.reconcile(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		history = append(history, seen{a.bundle(0), now})
		for len(history) > 1 && now.Sub(history[1].at) > time.Minute {
			history = history[1:]
		}
		for i, r := range rotators {
			for _, h := range history {
				if err := trusts(r, h.bundle, now); err != nil {
					t.Fatalf("after %s: replica %d is not trusted by an API server with the bundle of %s ago: %v",
						now.Sub(start), i, now.Sub(h.at), err)
				}
			}
		}
	}
	steps := map[string]int{}
	for _, l := range logs.FilterMessage("Secret updated").All() {
		steps[l.ContextMap()["step"].(string)]++
	}
	t.Log(steps)
	for _, step := range []Step{StepStart, StepRenew, StepIntroduce, StepSwitch, StepRetire} {
		if steps[string(step)] == 0 {
			t.Errorf("%s has never happened: this test proves nothing about it", step)
		}
	}
}

func TestKeysAreNotLogged(t *testing.T) {
	a := newAPI(t)
	core, logs := observer.New(zap.DebugLevel)
	r := rotator(t, a, policy, clocktesting.NewFakeClock(start), zap.New(core))
	if err := r.reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	key := string(bytes.Split(a.secret.Data[KeyCAKey], []byte("\n"))[1])
	a.edit(func(s *corev1.Secret) *corev1.Secret {
		s.Data[KeyCAKey] = []byte("-----BEGIN PRIVATE KEY-----\n" + key + "\n-----END PRIVATE KEY-----\n")
		s.Data[corev1.TLSPrivateKeyKey] = s.Data[KeyCAKey]
		return s
	})
	err := r.reconcile(t.Context())
	for _, l := range logs.All() {
		for _, v := range l.ContextMap() {
			if text, ok := v.(string); ok && strings.Contains(text, key[:16]) {
				t.Errorf("%s: %s", l.Message, text)
			}
		}
	}
	if logs.FilterMessage("Secret updated").Len() != 2 || errors.Join(err, r.Ready()) != nil {
		t.Errorf("not repaired: %v", err)
	}
}
