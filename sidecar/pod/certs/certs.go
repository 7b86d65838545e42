// Package certs makes the pod's own certificate authority, and the certificate with which the
// sidecar serves the pod's applications on loopback.
//
// Applications find the authority in the ca.crt of the service-account mirror, and most read
// that file once. So the authority lives as long as the pod: a restarted sidecar loads it
// from a private directory in memory. It never leaves the pod. If its key leaks, name
// constraints make it worthless for the DNS names of other servers. Addresses are not constrained,
// because some TLS libraries cannot read such a constraint.
//
// The package issues no other certificates and calls no API.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"

	"go.uber.org/zap"
	"k8s.io/utils/clock"
)

// Files in the private directory. Each holds a certificate and its key: one rename replaces
// both, so that they always match.
const (
	caFile   = "ca.pem"
	leafFile = "serving.pem"
)

// Options configure Open.
type Options struct {
	Directory string             // mode 0700, created if missing; in memory, not on a disk
	Names     []string           // DNS names of the API server, besides localhost
	Address   string             // the host of the listener; 127.0.0.1, ::1 and localhost are always included
	Clock     clock.PassiveClock // nil = the system's
	Logger    *zap.Logger        // nil = none
}

// Authority is the pod's CA with its serving certificate. It does not change
// after Open and is safe for concurrent use.
type Authority struct {
	ca, leaf pair
}

// Open loads the certificates from the directory. It replaces a certificate that is missing,
// damaged, near its end or for other names, and logs why. A new serving certificate is signed by
// the present CA. Running applications have already read the CA's certificate, so Open renews that
// for the same key and name. It makes a new key only if there is no CA that it could renew.
//
// A read-only directory is not an error: the certificates then exist in the process only.
// Open logs that, because applications will distrust the sidecar after its next restart.
func Open(o Options) (*Authority, error) {
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	// The addresses are those that the injector may put into KUBERNETES_SERVICE_HOST.
	want := subjects{
		dns: append([]string{"localhost"}, o.Names...),
		ips: []net.IP{net.IPv4(127, 0, 0, 1).To4(), net.IPv6loopback},
	}
	if ip := net.ParseIP(o.Address).To4(); ip != nil && !ip.Equal(want.ips[0]) {
		want.ips = append(want.ips, ip)
	}
	now := o.Clock.Now()

	a := &Authority{}
	var err error
	a.ca, err = load(filepath.Join(o.Directory, caFile))
	if err == nil {
		err = a.ca.isCA()
	}
	makeOrRenew := makeCA
	if err == nil {
		err = a.ca.isCurrent(want, now)
		makeOrRenew = a.ca.renewCA
	}
	if err != nil {
		logMaking(o.Logger, "making the pod's certificate authority", err)
		if a.ca, err = makeOrRenew(want, now); err != nil {
			return nil, fmt.Errorf("make the pod's certificate authority: %w", err)
		}
		saveOrLog(o, caFile, a.ca)
	}

	a.leaf, err = load(filepath.Join(o.Directory, leafFile))
	if err == nil {
		err = a.leaf.usableLeaf(a.ca, want, now)
	}
	if err != nil {
		logMaking(o.Logger, "making the pod's serving certificate", err)
		if a.leaf, err = makeLeaf(a.ca, want, now); err != nil {
			return nil, fmt.Errorf("make the pod's serving certificate: %w", err)
		}
		saveOrLog(o, leafFile, a.leaf)
	}
	return a, nil
}

// logMaking logs why a certificate is made. At the first start there is no reason to give.
func logMaking(log *zap.Logger, what string, why error) {
	if errors.Is(why, fs.ErrNotExist) {
		log.Info(what)
		return
	}
	log.Warn(what+" again", zap.Error(why))
}

func saveOrLog(o Options, name string, p pair) {
	path := filepath.Join(o.Directory, name)
	err := os.MkdirAll(o.Directory, 0o700)
	if err == nil {
		err = p.save(path)
	}
	if err != nil {
		o.Logger.Error("cannot save a certificate; running applications will not trust the sidecar after its restart: "+
			"make the private directory writable", zap.String("path", path), zap.Error(err))
	}
}

// CAPEM is the CA's certificate for the mirror's ca.crt, PEM-encoded with a final newline.
func (a *Authority) CAPEM() []byte { return a.ca.certPEM() }

// TLSConfig returns a new configuration for the sidecar's server.
func (a *Authority) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		Certificates: []tls.Certificate{{
			Certificate: [][]byte{a.leaf.cert.Raw},
			PrivateKey:  a.leaf.key,
			Leaf:        a.leaf.cert,
		}},
	}
}

// subjects are the names in the serving certificate. The CA permits no other DNS names.
type subjects struct {
	dns []string
	ips []net.IP
}

// constrain reports whether the CA certificate has exactly these names as its constraints, in the
// form that every TLS library accepts.
func (s subjects) constrain(cert *x509.Certificate) bool {
	return !cert.PermittedDNSDomainsCritical && len(cert.PermittedIPRanges) == 0 && slices.Equal(cert.PermittedDNSDomains, s.dns)
}

// name reports whether the certificate has exactly these names.
func (s subjects) name(cert *x509.Certificate) bool {
	return slices.Equal(cert.DNSNames, s.dns) && slices.EqualFunc(cert.IPAddresses, s.ips, net.IP.Equal)
}
