package certificate

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"maps"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

var policy = DefaultPolicy("rockpool-injector", "rockpool-system")

// next takes one step and checks that its result is complete.
func next(t *testing.T, data map[string][]byte, now time.Time, want Step) map[string][]byte {
	t.Helper()
	before := maps.Clone(data)
	change, err := policy.Next(data, now)
	if err != nil {
		t.Fatal(err)
	}
	if change.Step != want {
		t.Fatalf("step %s (%s), want %s", change.Step, change.Reason, want)
	}
	if !maps.EqualFunc(before, data, bytes.Equal) {
		t.Fatal("the input has changed")
	}
	c := policy.read(change.Data, now)
	if c.signer == nil || c.serving == nil {
		t.Fatalf("after %s: CA key: %v, certificate: %v", change.Step, c.signerErr, c.servingErr)
	}
	return change.Data
}

func TestEachDamageAndEachAgeHasItsStep(t *testing.T) {
	complete := next(t, nil, start, StepStart)
	other := next(t, nil, start, StepStart)
	damaged := func(keys ...string) map[string][]byte {
		data := maps.Clone(complete)
		for _, k := range keys {
			data[k] = []byte("junk")
		}
		return data
	}
	truncated := maps.Clone(complete)
	truncated[corev1.TLSCertKey] = truncated[corev1.TLSCertKey][:100]
	for _, tt := range []struct {
		name   string
		data   map[string][]byte
		after  time.Duration
		want   Step
		ca     bool // the CAs stay trusted
		served bool // the certificate stays
	}{
		{"nothing at all", nil, 0, StepStart, false, false},
		{"a new certificate stays", complete, 0, StepNone, true, true},
		{"a certificate of 59 days stays", complete, 59 * day, StepNone, true, true},
		{"a certificate of 61 days is renewed under its CA", complete, 61 * day, StepRenew, true, false},
		{"an expired certificate too", complete, 91 * day, StepRenew, true, false},
		{"a CA and a certificate that have expired", complete, 731 * day, StepStart, false, false},
		{"a certificate from the future stays: the clock here may be slow", complete, -30 * day, StepNone, true, true},
		{"a damaged certificate is renewed under its CA", damaged(corev1.TLSCertKey), 0, StepRenew, true, false},
		{"a truncated certificate", truncated, 0, StepRenew, true, false},
		{"a damaged key", damaged(corev1.TLSPrivateKeyKey), 0, StepRenew, true, false},
		{"the key of another certificate", with(complete, corev1.TLSPrivateKeyKey, other[corev1.TLSPrivateKeyKey]), 0, StepRenew, true, false},
		{"the certificate of another CA", with(with(complete, corev1.TLSPrivateKeyKey, other[corev1.TLSPrivateKeyKey]), corev1.TLSCertKey, other[corev1.TLSCertKey]), 0, StepRenew, true, false},
		{"without the CA's key a new CA is added, and the certificate stays", damaged(KeyCAKey), 0, StepIntroduce, true, true},
		{"the key of another CA", with(complete, KeyCAKey, other[KeyCAKey]), 0, StepIntroduce, true, true},
		{"a key that belongs to no CA", with(complete, KeyCAKey, complete[corev1.TLSPrivateKeyKey]), 0, StepIntroduce, true, true},
		{"without both keys all is new, and the CA stays for replicas that still serve its certificate", damaged(KeyCAKey, corev1.TLSPrivateKeyKey), 0, StepStart, true, false},
		{"a damaged CA", damaged(KeyCA), 0, StepStart, false, false},
		{"all damaged", damaged(KeyCA, KeyCAKey, corev1.TLSCertKey, corev1.TLSPrivateKeyKey), 0, StepStart, false, false},
		{"a CA that is not a CA", with(complete, KeyCA, complete[corev1.TLSCertKey]), 0, StepStart, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			after := next(t, tt.data, start.Add(tt.after), tt.want)
			if kept := bytes.Contains(after[KeyCA], complete[KeyCA]); kept != tt.ca {
				t.Errorf("the CA is kept: %t", kept)
			}
			if kept := bytes.Equal(after[corev1.TLSCertKey], complete[corev1.TLSCertKey]); kept != tt.served {
				t.Errorf("the certificate is kept: %t", kept)
			}
			next(t, after, start.Add(tt.after), StepNone)
		})
	}

	renamed := policy
	renamed.Names = []string{"other.rockpool-system.svc"}
	if change, err := renamed.Next(complete, start); err != nil || change.Step != StepRenew || !bytes.Equal(change.Data[KeyCA], complete[KeyCA]) {
		t.Errorf("for a Service of another name: %s, %v", change.Step, err)
	}
}

func TestARotationOfTheCA(t *testing.T) {
	data := next(t, nil, start, StepStart)
	old := data
	now := start
	for range 9 { // 540 days of certificates, each renewed 30 days before its end
		now = now.Add(60*day + time.Second)
		data = next(t, data, now, StepRenew)
	}
	if !bytes.Equal(data[KeyCA], old[KeyCA]) {
		t.Fatal("another CA")
	}
	now = start.Add(550*day + time.Second)
	introduced := next(t, data, now, StepIntroduce)
	if cas := decodeAuthorities(introduced[KeyCA], now); len(cas) != 2 || !bytes.Equal(encodeCertificates(cas[1]), old[KeyCA]) {
		t.Fatalf("%d CAs", len(cas))
	}
	next(t, introduced, now.Add(policy.Settle-time.Second), StepNone)
	now = now.Add(policy.Settle)
	switched := next(t, introduced, now, StepSwitch)
	if !bytes.Equal(switched[KeyCA], introduced[KeyCA]) {
		t.Error("switching has changed the CAs")
	}
	next(t, switched, now.Add(policy.Settle-time.Second), StepNone)
	now = now.Add(policy.Settle)
	retired := next(t, switched, now, StepRetire)
	if cas := decodeAuthorities(retired[KeyCA], now); len(cas) != 1 || bytes.Equal(retired[KeyCA], old[KeyCA]) {
		t.Errorf("%d CAs", len(cas))
	}
	next(t, retired, now, StepNone)
}

func TestADisturbedRotationStillCompletes(t *testing.T) {
	old := next(t, nil, start, StepStart)
	introduced := next(t, with(old, KeyCAKey, nil), start.Add(time.Hour), StepIntroduce)
	now := start.Add(time.Hour)
	t.Run("the new CA's key is lost before it has signed", func(t *testing.T) {
		again := next(t, with(introduced, KeyCAKey, nil), now, StepIntroduce)
		if !bytes.Contains(again[KeyCA], old[KeyCA]) || len(decodeAuthorities(again[KeyCA], now)) != 2 {
			t.Error("the CA of the certificate in use must stay, and the CA that has signed nothing must go")
		}
		next(t, again, now.Add(policy.Settle), StepSwitch)
	})
	t.Run("the certificate is lost before the new CA has settled", func(t *testing.T) {
		renewed := next(t, with(introduced, corev1.TLSCertKey, nil), now, StepRenew)
		next(t, renewed, now.Add(policy.Settle), StepRetire)
	})
}

func TestNoCertificateOutlivesItsCA(t *testing.T) {
	short := policy
	short.CAValidity = 10 * day
	change, err := short.Next(nil, start)
	if err != nil {
		t.Fatal(err)
	}
	ca := decodeAuthorities(change.Data[KeyCA], start)[0]
	pair, err := tls.X509KeyPair(change.Data[corev1.TLSCertKey], change.Data[corev1.TLSPrivateKeyKey])
	if err != nil || !pair.Leaf.NotAfter.Equal(ca.NotAfter) {
		t.Errorf("%v: the certificate ends %s, its CA %s", err, pair.Leaf.NotAfter, ca.NotAfter)
	}
	if err := ca.CheckSignatureFrom(ca); err != nil {
		t.Error(err)
	}
	if pair.Leaf.IsCA || !slices.Equal(pair.Leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) {
		t.Errorf("the certificate is for more than serving: %v", pair.Leaf.ExtKeyUsage)
	}
}

func TestTheBundleKeepsCAsInUse(t *testing.T) {
	ours, theirs := next(t, nil, start, StepStart), next(t, nil, start, StepStart)
	both := slices.Concat(ours[KeyCA], theirs[KeyCA])
	for _, tt := range []struct {
		name          string
		present, want []byte
		after         time.Duration
	}{
		{"nothing was trusted", nil, ours[KeyCA], 0},
		{"another CA stays at first", theirs[KeyCA], both, 0},
		{"no CA is added twice", both, both, policy.Settle - time.Second},
		{"another CA goes when the new one has settled", both, ours[KeyCA], policy.Settle},
		{"junk is removed at once", []byte("junk"), ours[KeyCA], 0},
		{"another client has removed our CA", nil, ours[KeyCA], 30 * day},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := policy.Bundle(ours, tt.present, start.Add(tt.after)); !bytes.Equal(got, tt.want) {
				t.Errorf("%d CAs", len(decodeAuthorities(got, start)))
			}
		})
	}
}

// FuzzRead checks for any Secret that the contents taken for usable are usable, and that the
// bundle has the same CAs.
func FuzzRead(f *testing.F) {
	complete, err := policy.Next(nil, start)
	if err != nil {
		f.Fatal(err)
	}
	d := complete.Data
	f.Add(d[KeyCA], d[KeyCAKey], d[corev1.TLSCertKey], d[corev1.TLSPrivateKeyKey], int64(0))
	f.Add(d[KeyCA], []byte{}, d[corev1.TLSCertKey], d[corev1.TLSPrivateKeyKey], int64(61*day))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), []byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"), []byte{}, []byte{}, int64(day))
	f.Add(slices.Concat(d[KeyCA], d[KeyCA]), d[corev1.TLSPrivateKeyKey], d[KeyCA], d[KeyCAKey], int64(700*day))
	f.Fuzz(func(t *testing.T, ca, caKey, cert, key []byte, after int64) {
		now := start.Add(time.Duration(after % int64(1000*day)))
		c := policy.read(map[string][]byte{KeyCA: ca, KeyCAKey: caKey, corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key}, now)
		if c.signer != nil && !c.authorities[0].PublicKey.(*ecdsa.PublicKey).Equal(c.signer.Public()) {
			t.Fatal("a key of another CA than the newest")
		}
		if (c.signer == nil) == (c.signerErr == nil) && len(c.authorities) > 0 {
			t.Fatalf("signer %t, error %v", c.signer != nil, c.signerErr)
		}
		if c.serving != nil {
			if err := c.serving.CheckSignatureFrom(c.issuer); err != nil || !now.Before(c.serving.NotAfter) {
				t.Fatalf("a certificate until %s that no API server accepts: %v", c.serving.NotAfter, err)
			}
		}
		bundle := policy.Bundle(map[string][]byte{KeyCA: ca}, cert, now)
		again := decodeAuthorities(bundle, now)
		if !bytes.Equal(encodeCertificates(again...), bundle) || len(again) < len(c.authorities) {
			t.Fatalf("decoding and encoding changes the bundle: %q", bundle)
		}
	})
}
