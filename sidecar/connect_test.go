package main

import (
	"crypto/x509"
	"testing"

	"go.uber.org/zap"

	"rockpool.dev/sidecar/pod/certs"
)

// A client of the forward proxy would refuse a certificate that does not name the host it asked for.
func TestThePodsCertificateNamesEachConnectHost(t *testing.T) {
	authority, err := certs.Open(certs.Options{Directory: t.TempDir(), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.CAPEM())
	leaf := authority.TLSConfig().Certificates[0].Leaf
	for _, host := range connectHosts {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
}
