package certificate

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Keys of the Secret's data, in addition to [corev1.TLSCertKey] and [corev1.TLSPrivateKeyKey].
const (
	// KeyCA has the CAs to trust in PEM, the newest first.
	KeyCA = corev1.ServiceAccountRootCAKey
	// KeyCAKey is the private key of the newest CA.
	KeyCAKey = "ca.key"
)

// Policy says what the Secret should contain.
type Policy struct {
	// Names that the serving certificate is for.
	Names []string
	// CAValidity is how long a CA is valid, Validity how long a serving certificate.
	CAValidity, Validity time.Duration
	// CARenewal and Renewal are how long before its expiry each is replaced.
	CARenewal, Renewal time.Duration
	// Settle is how long API servers trust both the old and the new CA of a change: longer than
	// API servers need to notice a bundle, and replicas a certificate.
	Settle time.Duration
}

// DefaultPolicy is for the webhook of a Service. It renews a CA long before the CA's expiry
// could shorten a certificate.
func DefaultPolicy(service, namespace string) Policy {
	const day = 24 * time.Hour
	host := service + "." + namespace + ".svc" // the name that API servers verify
	return Policy{
		Names:      []string{host, host + ".cluster.local"},
		CAValidity: 2 * 365 * day, CARenewal: 180 * day,
		Validity: 90 * day, Renewal: 30 * day,
		Settle: 10 * time.Minute,
	}
}

// Step is what a change does.
type Step string

// The steps, in the order of a rotation.
const (
	// StepNone leaves the Secret as it is.
	StepNone Step = "none"
	// StepStart makes CA and certificate, because no usable ones exist.
	StepStart Step = "start"
	// StepRenew replaces the certificate with one of the newest CA, the only one with a key.
	StepRenew Step = "renew"
	// StepIntroduce adds a CA to the trusted ones.
	StepIntroduce Step = "introduce"
	// StepSwitch replaces the certificate with one of the new CA.
	StepSwitch Step = "switch"
	// StepRetire drops the old CAs.
	StepRetire Step = "retire"
)

// Change is an update of the Secret.
type Change struct {
	Step Step
	// Reason for the change, for a person.
	Reason string
	// Data of the Secret after the change.
	Data map[string][]byte
}

// contents is the usable part of a Secret's data.
type contents struct {
	authorities []*x509.Certificate // not expired, the newest first
	signer      crypto.Signer       // the key of the newest CA, or nil
	signerErr   error               // why signer is nil
	serving     *x509.Certificate   // nil unless an API server would accept it
	servingErr  error               // why serving is nil
	issuer      *x509.Certificate   // of serving
}

// read returns the usable contents; a damaged part does not affect the others. A certificate
// that is not valid yet counts as usable: it comes from a replica whose clock is fast.
func (p Policy) read(data map[string][]byte, now time.Time) contents {
	var c contents
	if c.authorities = decodeAuthorities(data[KeyCA], now); len(c.authorities) == 0 {
		return c
	}
	c.signer, c.signerErr = decodeKey(data[KeyCAKey], c.authorities[0])
	pair, err := tls.X509KeyPair(data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey])
	if err != nil {
		c.servingErr = errors.New("certificate and key do not match, or are damaged")
		return c
	}
	at := now
	if at.Before(pair.Leaf.NotBefore) {
		at = pair.Leaf.NotBefore
	}
	for _, ca := range c.authorities {
		roots := x509.NewCertPool()
		roots.AddCert(ca)
		for _, name := range p.Names {
			if _, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: at}); err != nil {
				break
			}
		}
		if err == nil {
			c.serving, c.issuer = pair.Leaf, ca
			return c
		}
	}
	c.servingErr = err
	return c
}

// Next decides on the change to a Secret from its data and the time alone, so that all
// replicas decide alike. An error comes from making keys.
func (p Policy) Next(data map[string][]byte, now time.Time) (Change, error) {
	c := p.read(data, now)
	if len(c.authorities) == 0 {
		return p.renew(StepStart, KeyCA+": there is no valid CA", nil, nil, now)
	}
	newest := c.authorities[0]
	switch {
	case c.serving == nil && c.signer == nil:
		return p.renew(StepStart, fmt.Sprintf("%s: %v; %s: %v", corev1.TLSCertKey, c.servingErr, KeyCAKey, c.signerErr), c.authorities, nil, now)
	case c.serving == nil:
		return p.renew(StepRenew, fmt.Sprintf("%s: %v", corev1.TLSCertKey, c.servingErr), c.authorities, c.signer, now)
	case c.signer == nil:
		return p.introduce(fmt.Sprintf("%s: %v", KeyCAKey, c.signerErr), c, data, now)
	case newest.NotAfter.Sub(now) < p.CARenewal:
		return p.introduce("the CA expires "+newest.NotAfter.Format(time.RFC3339), c, data, now)
	case c.issuer != newest && now.Sub(issued(newest)) >= p.Settle:
		return p.renew(StepSwitch, "the new CA has been trusted for "+p.Settle.String(), c.authorities, c.signer, now)
	case c.issuer == newest && c.serving.NotAfter.Sub(now) < p.Renewal:
		return p.renew(StepRenew, "the certificate expires "+c.serving.NotAfter.Format(time.RFC3339), c.authorities, c.signer, now)
	case c.issuer == newest && len(c.authorities) > 1 && now.Sub(issued(c.serving)) >= p.Settle:
		return Change{StepRetire, "the certificate of the new CA has been served for " + p.Settle.String(),
			with(data, KeyCA, encodeCertificates(newest))}, nil
	}
	return Change{Step: StepNone, Data: data}, nil
}

// introduce adds a new CA. The issuer of the present certificate stays until the switch.
func (p Policy) introduce(reason string, c contents, data map[string][]byte, now time.Time) (Change, error) {
	ca, signer, err := newAuthority(now, p.CAValidity)
	if err != nil {
		return Change{}, err
	}
	key, err := encodeKey(signer)
	if err != nil {
		return Change{}, err
	}
	next := with(data, KeyCA, encodeCertificates(ca, c.issuer))
	next[KeyCAKey] = key
	return Change{StepIntroduce, reason, next}, nil
}

// renew makes a certificate of the newest CA. If signer is nil, it first makes a new CA.
func (p Policy) renew(step Step, reason string, authorities []*x509.Certificate, signer crypto.Signer, now time.Time) (Change, error) {
	if signer == nil {
		ca, made, err := newAuthority(now, p.CAValidity)
		if err != nil {
			return Change{}, err
		}
		authorities, signer = append([]*x509.Certificate{ca}, authorities...), made
	}
	serving, key, err := newServing(now, p.Validity, p.Names, authorities[0], signer)
	if err != nil {
		return Change{}, err
	}
	caKey, err := encodeKey(signer)
	if err != nil {
		return Change{}, err
	}
	servingKey, err := encodeKey(key)
	if err != nil {
		return Change{}, err
	}
	return Change{step, reason, map[string][]byte{
		KeyCA: encodeCertificates(authorities...), KeyCAKey: caKey,
		corev1.TLSCertKey: encodeCertificates(serving), corev1.TLSPrivateKeyKey: servingKey,
	}}, nil
}

func with(data map[string][]byte, key string, value []byte) map[string][]byte {
	next := map[string][]byte{key: value}
	for k, v := range data {
		if k != key {
			next[k] = v
		}
	}
	return next
}

// Bundle returns the caBundle: the CAs of the Secret. Until the newest CA has settled, the
// present CAs stay in the bundle too: replicas may still serve a certificate of one of them,
// from before a repair or from the files of another kind of installation.
func (p Policy) Bundle(data map[string][]byte, present []byte, now time.Time) []byte {
	authorities := decodeAuthorities(data[KeyCA], now)
	if len(authorities) > 0 && now.Sub(issued(authorities[0])) < p.Settle {
		for _, ca := range decodeAuthorities(present, now) {
			if !contains(authorities, ca) {
				authorities = append(authorities, ca)
			}
		}
	}
	return encodeCertificates(authorities...)
}

// keepsServing reports whether a replica should continue to serve its present certificate.
// After the Secret was lost or its CA damaged, there was no time to introduce the new CA. API
// servers trust the old CA too until the new one has settled (see Bundle). In the first half
// of that time the present certificate is the safer one.
func (p Policy) keepsServing(data map[string][]byte, serving *x509.Certificate, now time.Time) bool {
	authorities := decodeAuthorities(data[KeyCA], now)
	return len(authorities) > 0 && now.Sub(issued(authorities[0])) < p.Settle/2 &&
		serving.CheckSignatureFrom(authorities[0]) != nil && now.Before(serving.NotAfter)
}

// notYetValid reports whether API servers would not accept the next certificate yet, because
// it comes from a replica whose clock is fast. The present certificate must be valid, and
// signed by one of the CAs in data.
func notYetValid(next, present *x509.Certificate, data map[string][]byte, now time.Time) bool {
	return now.Before(next.NotBefore) && now.Before(present.NotAfter) &&
		slices.ContainsFunc(decodeAuthorities(data[KeyCA], now), func(ca *x509.Certificate) bool { return present.CheckSignatureFrom(ca) == nil })
}
