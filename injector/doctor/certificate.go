package doctor

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"time"
)

// soon is when a certificate should have been renewed: the injector does so 30 days before.
const soon = 14 * 24 * time.Hour

// bundle checks the CAs by which API servers trust the injector.
func (x *examination) bundle() {
	seen := map[string]bool{}
	for _, h := range x.hooks() {
		text := string(h.ClientConfig.CABundle)
		if seen[text] {
			continue
		}
		seen[text] = true
		certs := parseCertificates([]byte(text))
		valid := false
		for _, c := range certs {
			valid = valid || x.Now.Before(c.NotAfter)
		}
		switch {
		case len(bytes.TrimSpace([]byte(text))) == 0:
			x.found(Fail, CABundleEmpty, "webhook %s has no caBundle", h.Name)
		case len(certs) == 0:
			x.found(Fail, CABundleInvalid, "the caBundle of webhook %s has no certificate", h.Name)
		case !valid:
			x.found(Fail, CABundleExpired, "the CA in the caBundle of webhook %s has expired on %s", h.Name, certs[len(certs)-1].NotAfter.UTC().Format(time.DateOnly))
		}
	}
}

// certificate checks the certificate of the injector, and compares it with the caBundle.
func (x *examination) certificate() {
	if !x.read(Secrets) {
		return
	}
	chain := parseCertificates(x.Certificate)
	if len(chain) == 0 {
		x.found(Fail, CertificateMissing, "the Secret %s/%s is missing, or has no certificate", x.Names.Namespace, x.Names.Secret)
		return
	}
	leaf := chain[0]
	host := x.Names.Service + "." + x.Names.Namespace + ".svc"
	switch left := leaf.NotAfter.Sub(x.Now); {
	case left <= 0:
		x.found(Fail, CertificateExpired, "the certificate has expired on %s", leaf.NotAfter.UTC().Format(time.DateOnly))
		return
	case leaf.VerifyHostname(host) != nil:
		x.found(Fail, CertificateWrongName, "the certificate is for %s, and API servers ask for %s", some(leaf.DNSNames), host)
		return
	case left < soon:
		x.found(Warn, CertificateExpiring, "the certificate expires on %s", leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	if x.has(CABundleEmpty, CABundleInvalid, CABundleExpired) {
		return
	}
	for _, h := range x.hooks() {
		if err := verify(chain, h.ClientConfig.CABundle, x.Now); err != nil {
			x.found(Fail, CABundleMismatch, "the caBundle of webhook %s does not verify the certificate: %v", h.Name, err)
		}
	}
	if !x.has(CABundleMismatch, CertificateExpiring) {
		x.ok(Certificate, "the certificate is for %s until %s", host, leaf.NotAfter.UTC().Format(time.DateOnly))
	}
}

// verify is how an API server verifies the chain of a webhook.
func verify(chain []*x509.Certificate, bundle []byte, now time.Time) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return errors.New("it has no certificate")
	}
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now})
	return err
}

// parseCertificates returns the certificates in a PEM file, and skips everything else.
func parseCertificates(text []byte) []*x509.Certificate {
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return all
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			all = append(all, c)
		}
	}
}
