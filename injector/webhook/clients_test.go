package webhook

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"
)

// authority is a CA of clients.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	a.cert, a.key = a.issue("ca", true)
	return a
}

func (a *authority) issue(name string, ca bool) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: ca, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	parent, signer := template, key
	if !ca {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// client returns a client with a certificate of the CA; without a name, it has none.
func (a *authority) client(name string) *http.Client {
	config := &tls.Config{InsecureSkipVerify: true}
	if name != "" {
		cert, key := a.issue(name, false)
		config.Certificates = []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}
	}
	transport := &http.Transport{TLSClientConfig: config}
	a.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

func TestOnlyAPIServersMaySendReviews(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	var published []string
	clients, err := ParseClients(ours.pem(), []string{"kube-apiserver"})
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, Options{Clients: clients, Injected: func(namespace string) { published = append(published, namespace) }}, nil)
	for name, test := range map[string]struct {
		client *http.Client
		want   int // 0 = no handshake
	}{
		"an API server":               {ours.client("kube-apiserver"), http.StatusOK},
		"nobody":                      {ours.client(""), http.StatusUnauthorized},
		"a kubelet of the same CA":    {ours.client("system:node:a"), http.StatusUnauthorized},
		"an API server of another CA": {other.client("kube-apiserver"), 0},
	} {
		published = nil
		code, err := s.review(test.client)
		if code != test.want || (err != nil) != (test.want == 0) {
			t.Errorf("%s: HTTP %d, %v", name, code, err)
		}
		if (len(published) > 0) != (test.want == http.StatusOK) {
			t.Errorf("%s: published in %q", name, published)
		}
	}
	if code, text := s.probe(ours.client("")); code != http.StatusOK {
		t.Errorf("a probe of the kubelet: %d %s", code, text)
	}
	s.stop()
	if err := <-s.done; err != nil {
		t.Error(err)
	}
}

func TestParseClientsNeedsACertificate(t *testing.T) {
	if _, err := ParseClients([]byte("no PEM"), nil); err == nil || !strings.Contains(err.Error(), "no certificate in PEM") {
		t.Error(err)
	}
}
