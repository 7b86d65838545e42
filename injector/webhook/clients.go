package webhook

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Clients are API servers that prove who they are by a certificate: they send one if their
// AdmissionConfiguration names a kubeconfig for webhooks, see
// https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#authenticate-apiservers.
type Clients struct {
	// CAs that sign the certificates. Required.
	CAs *x509.CertPool
	// Names of which a certificate must have one, as its common name or as a DNS name. Empty: any.
	Names []string
}

// ParseClients reads the PEM of the CAs.
func ParseClients(pem []byte, names []string) (*Clients, error) {
	c := &Clients{CAs: x509.NewCertPool(), Names: names}
	if !c.CAs.AppendCertsFromPEM(pem) {
		return nil, errors.New("has no certificate in PEM")
	}
	return c, nil
}

// check returns why a request is not of such a client, or nil.
func (c *Clients) check(r *http.Request) error {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return errors.New("a client certificate of the CA in --client-ca-file is required; " +
			"name one for this webhook in the API server's AdmissionConfiguration")
	}
	leaf := r.TLS.VerifiedChains[0][0]
	if len(c.Names) == 0 || slices.Contains(c.Names, leaf.Subject.CommonName) ||
		slices.ContainsFunc(leaf.DNSNames, func(name string) bool { return slices.Contains(c.Names, name) }) {
		return nil
	}
	return fmt.Errorf("the client certificate is of %q; --client-names has %s", leaf.Subject.CommonName, strings.Join(c.Names, ", "))
}
