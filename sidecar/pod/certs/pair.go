package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	certType = "CERTIFICATE"
	keyType  = "PRIVATE KEY" // PKCS #8
)

// pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (p pair) certPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certType, Bytes: p.cert.Raw})
}

// load reads a pair. Its errors name the path and never quote the content.
func load(path string) (pair, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return pair{}, err
	}
	p, err := parse(content)
	if err != nil {
		return pair{}, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

func parse(content []byte) (p pair, err error) {
	first, rest := pem.Decode(content)
	if first == nil || first.Type != certType {
		return p, errors.New("does not begin with a PEM certificate")
	}
	second, rest := pem.Decode(rest)
	if second == nil || second.Type != keyType || len(bytes.TrimSpace(rest)) > 0 {
		return p, errors.New("has no PEM private key as its second and last block")
	}
	if p.cert, err = x509.ParseCertificate(first.Bytes); err != nil {
		return p, errors.New("has a damaged certificate")
	}
	key, err := x509.ParsePKCS8PrivateKey(second.Bytes)
	if err != nil {
		return p, errors.New("has a damaged private key")
	}
	var ok bool
	if p.key, ok = key.(*ecdsa.PrivateKey); !ok {
		return p, errors.New("has a key that is not ECDSA")
	}
	if !p.key.PublicKey.Equal(p.cert.PublicKey) {
		return p, errors.New("has the key of another certificate")
	}
	return p, nil
}

// save replaces the file atomically, with mode 0600. It does not sync: the private directory
// is in memory.
func (p pair) save(path string) (err error) {
	key, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return err
	}
	// The name is fixed, so that the next save removes what a crash left.
	next := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".next")
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(next)
		}
	}()
	_, err = file.Write(append(p.certPEM(), pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: key})...))
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(next, path)
}

// isCA returns an error unless the pair is a CA of a pod, whatever its names and lifetime.
func (p pair) isCA() error {
	switch {
	case !p.cert.IsCA || p.cert.KeyUsage&x509.KeyUsageCertSign == 0 || !p.cert.MaxPathLenZero:
		return errors.New("the stored certificate is not a CA certificate")
	case p.cert.CheckSignatureFrom(p.cert) != nil:
		return errors.New("the stored CA is not self-signed")
	}
	return nil
}

// isCurrent returns an error if the certificate of a CA needs to be renewed.
func (p pair) isCurrent(want subjects, now time.Time) error {
	if !want.constrain(p.cert) {
		return errors.New("the stored CA has other name constraints")
	}
	return checkValidity(p.cert, now)
}

// usableLeaf returns an error unless the pair can be the serving certificate under ca.
func (p pair) usableLeaf(ca pair, want subjects, now time.Time) error {
	switch {
	case !want.name(p.cert):
		return errors.New("the stored certificate is for other names")
	case p.cert.IsCA || p.cert.CheckSignatureFrom(ca.cert) != nil:
		return errors.New("the stored certificate is not signed by the pod's CA")
	}
	return checkValidity(p.cert, now)
}

func checkValidity(cert *x509.Certificate, now time.Time) error {
	if now.Before(cert.NotBefore) {
		return fmt.Errorf("the stored certificate is not valid before %s", cert.NotBefore.Format(time.RFC3339))
	}
	if now.After(cert.NotAfter.Add(-margin)) {
		return fmt.Errorf("the stored certificate expires at %s", cert.NotAfter.Format(time.RFC3339))
	}
	return nil
}
