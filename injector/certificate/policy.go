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

// Keys of the Secret's data, beside [corev1.TLSCertKey] and [corev1.TLSPrivateKeyKey].
const (
	// KeyCA has the CAs to trust in PEM, the newest first.
	KeyCA = corev1.ServiceAccountRootCAKey
	// KeyCAKey is the private key of the newest of them.
	KeyCAKey = "ca.key"
)

// Policy says what the Secret shall hold.
type Policy struct {
	// Names that the serving certificate is for.
	Names []string
	// CAValidity is how long a CA is valid, Validity how long a serving certificate.
	CAValidity, Validity time.Duration
	// CARenewal and Renewal are how long before its end each is replaced.
	CARenewal, Renewal time.Duration
	// Settle is for how long both ends of a change are trusted: longer than API servers need
	// to notice a bundle, and replicas a certificate.
	Settle time.Duration
}

// DefaultPolicy is for the webhook of a Service. CAs are renewed long before a certificate
// could reach their end.
func DefaultPolicy(service, namespace string) Policy {
	const day = 24 * time.Hour
	host := service + "." + namespace + ".svc" // the name that API servers ask for
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
	// StepStart makes CA and certificate, because there are none that could be used.
	StepStart Step = "start"
	// StepRenew replaces the certificate by one of the same CA, or of the only one whose key is there.
	StepRenew Step = "renew"
	// StepIntroduce adds a CA, to be trusted beside the others.
	StepIntroduce Step = "introduce"
	// StepSwitch replaces the certificate by one of the new CA.
	StepSwitch Step = "switch"
	// StepRetire drops the CAs before.
	StepRetire Step = "retire"
)

// Change is what to do with a Secret.
type Change struct {
	Step Step
	// Reason says why, for a person.
	Reason string
	// Data of the Secret after it.
	Data map[string][]byte
}

// contents is what is usable in the data of a Secret.
type contents struct {
	authorities []*x509.Certificate // not expired, the newest first
	signer      crypto.Signer       // the key of the newest, or nil
	signerFlaw  error               // why it is nil
	serving     *x509.Certificate   // nil if there is none that an API server would accept
	servingFlaw error               // why it is nil
	issuer      *x509.Certificate   // of serving
}

// read takes what can be used; damage to one part does not cost another. A certificate that is not
// valid yet was made by a replica whose clock is ahead, and is left to it.
func (p Policy) read(data map[string][]byte, now time.Time) contents {
	var c contents
	if c.authorities = decodeAuthorities(data[KeyCA], now); len(c.authorities) == 0 {
		return c
	}
	c.signer, c.signerFlaw = decodeKey(data[KeyCAKey], c.authorities[0])
	pair, err := tls.X509KeyPair(data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey])
	if err != nil {
		c.servingFlaw = errors.New("certificate and key do not fit, or are damaged")
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
	c.servingFlaw = err
	return c
}

// Next decides what to do with a Secret that has this data at this time. It looks at nothing
// else, so all replicas come to the same end. The error is one of making keys.
func (p Policy) Next(data map[string][]byte, now time.Time) (Change, error) {
	c := p.read(data, now)
	if len(c.authorities) == 0 {
		return p.renew(StepStart, KeyCA+": there is no valid CA", nil, nil, now)
	}
	newest := c.authorities[0]
	switch {
	case c.serving == nil && c.signer == nil:
		return p.renew(StepStart, fmt.Sprintf("%s: %v; %s: %v", corev1.TLSCertKey, c.servingFlaw, KeyCAKey, c.signerFlaw), c.authorities, nil, now)
	case c.serving == nil:
		return p.renew(StepRenew, fmt.Sprintf("%s: %v", corev1.TLSCertKey, c.servingFlaw), c.authorities, c.signer, now)
	case c.signer == nil:
		return p.introduce(fmt.Sprintf("%s: %v", KeyCAKey, c.signerFlaw), c, data, now)
	case newest.NotAfter.Sub(now) < p.CARenewal:
		return p.introduce("the CA ends "+newest.NotAfter.Format(time.RFC3339), c, data, now)
	case c.issuer != newest && now.Sub(issued(newest)) >= p.Settle:
		return p.renew(StepSwitch, "the new CA has been trusted for "+p.Settle.String(), c.authorities, c.signer, now)
	case c.issuer == newest && c.serving.NotAfter.Sub(now) < p.Renewal:
		return p.renew(StepRenew, "the certificate ends "+c.serving.NotAfter.Format(time.RFC3339), c.authorities, c.signer, now)
	case c.issuer == newest && len(c.authorities) > 1 && now.Sub(issued(c.serving)) >= p.Settle:
		return Change{StepRetire, "the certificate of the new CA has been served for " + p.Settle.String(),
			with(data, KeyCA, encodeCertificates(newest))}, nil
	}
	return Change{Step: StepNone, Data: data}, nil
}

// introduce adds a CA before those that are needed until the certificate is one of it.
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

// renew makes a certificate of the newest CA, and without its key first a new CA.
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

// Bundle is what API servers shall trust: the CAs of the Secret. While the newest of them has not
// settled, what they trust at present stays beside them: replicas may still serve a certificate
// of it, be it from before a repair, or from the files of another way of installation.
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

// premature tells that a replica does better to go on serving this certificate. When the Secret was lost or
// its CA damaged, there was no time to introduce the new CA; API servers trust the old one beside it
// until it has settled (see Bundle), and this is the first half of that time.
func (p Policy) premature(data map[string][]byte, serving *x509.Certificate, now time.Time) bool {
	authorities := decodeAuthorities(data[KeyCA], now)
	return len(authorities) > 0 && now.Sub(issued(authorities[0])) < p.Settle/2 &&
		serving.CheckSignatureFrom(authorities[0]) != nil && now.Before(serving.NotAfter)
}

// early tells that the next certificate was made by a replica whose clock is ahead, and that the
// present one is valid, and trusted by the CAs in data, until then: API servers would not accept the
// next one yet.
func early(next, present *x509.Certificate, data map[string][]byte, now time.Time) bool {
	return now.Before(next.NotBefore) && now.Before(present.NotAfter) &&
		slices.ContainsFunc(decodeAuthorities(data[KeyCA], now), func(ca *x509.Certificate) bool { return present.CheckSignatureFrom(ca) == nil })
}
