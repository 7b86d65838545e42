// Package authority has certificates of clusters that tests make up.
package authority

import (
	"testing"

	"k8s.io/client-go/util/cert"
)

// New returns the CA certificate, in PEM, of a new cluster.
func New(t testing.TB) []byte {
	t.Helper()
	certPEM, _, err := cert.GenerateSelfSignedCertKey("kubernetes", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return certPEM
}
