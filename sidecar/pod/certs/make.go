package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"time"
)

// Clocks at the edge are wrong in both directions, and jump. A board without a battery starts
// at the epoch and learns the true time from the network, while applications still use the CA
// that they have read.
//
// So a certificate is valid from the epoch, the earliest time of such a clock, until ten
// years after now. A clock before this program's own year counts as that year. The lifetime
// protects nothing here: only the pod trusts its CA, which ends with the pod.
var (
	notBefore = time.Unix(0, 0).UTC()
	floor     = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)
)

const (
	years = 10
	// A stored certificate with less time left is replaced at the start, when no application
	// depends on it yet.
	margin = 30 * 24 * time.Hour
)

func notAfter(now time.Time) time.Time {
	if now.Before(floor) {
		now = floor
	}
	return now.AddDate(years, 0, 0).UTC()
}

func makeCA(names subjects, now time.Time) (pair, error) {
	key, serial, err := keyAndSerial()
	if err != nil {
		return pair{}, err
	}
	// Each CA has a unique name: verifiers look up issuers by name.
	name := pkix.Name{CommonName: "rockpool pod CA " + hex.EncodeToString(serial.Bytes()[:8])}
	return signCA(key, name, serial, names, now)
}

// renewCA makes a new certificate for the key and name of a CA. What the CA has signed, and will
// sign, is accepted by programs that have read the former certificate, and by those that read the
// new one.
func (p pair) renewCA(names subjects, now time.Time) (pair, error) {
	_, serial, err := keyAndSerial()
	if err != nil {
		return pair{}, err
	}
	return signCA(p.key, p.cert.Subject, serial, names, now)
}

func signCA(key *ecdsa.PrivateKey, name pkix.Name, serial *big.Int, names subjects, now time.Time) (pair, error) {
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               name,
		NotBefore:             notBefore,
		NotAfter:              notAfter(now),
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true, // it may not issue further CAs
		KeyUsage:              x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},

		// Not critical, and without addresses: BoringSSL rejects a chain with constraints on
		// addresses, and mbedTLS a CA with critical constraints of any kind.
		PermittedDNSDomains: names.dns,
	}
	return sign(template, template, key, key)
}

func makeLeaf(ca pair, names subjects, now time.Time) (pair, error) {
	key, serial, err := keyAndSerial()
	if err != nil {
		return pair{}, err
	}
	// No verifier accepts a certificate after its issuer has expired.
	end := notAfter(now)
	if end.After(ca.cert.NotAfter) {
		end = ca.cert.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "kubernetes"},
		NotBefore:             notBefore,
		NotAfter:              end,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:              names.dns,
		IPAddresses:           names.ips,
	}
	return sign(template, ca.cert, key, ca.key)
}

func keyAndSerial() (*ecdsa.PrivateKey, *big.Int, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	// Positive, and always 16 bytes: no leading zeros.
	b := make([]byte, 16)
	rand.Read(b)
	b[0] = b[0]&0x7f | 0x40
	return key, new(big.Int).SetBytes(b), nil
}

func sign(template, issuer *x509.Certificate, key, issuerKey *ecdsa.PrivateKey) (pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, issuerKey)
	if err != nil {
		return pair{}, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return pair{}, err
	}
	return pair{cert: cert, key: key}, nil
}
