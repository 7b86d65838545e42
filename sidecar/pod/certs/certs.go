// Package certs makes the pod's own certificate authority, and the certificate with which the
// sidecar serves the pod's applications on loopback.
//
// Applications find the authority in the ca.crt of the service-account mirror, and most read
// that file once. So the authority lives as long as the pod: a restarted sidecar loads it
// from a private directory in memory. It never leaves the pod. If its key leaks, name
// constraints make it worthless outside the pod's own loopback.
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

// DefaultClusterDomain is the DNS domain of most clusters.
const DefaultClusterDomain = "cluster.local"

// Files in the private directory. Each holds a certificate and its key: one rename replaces
// both, so that they always match.
const (
	caFile   = "ca.pem"
	leafFile = "serving.pem"
)

// Options configure Open.
type Options struct {
	Directory     string             // mode 0700, created if missing; in memory, not on a disk
	ClusterDomain string             // empty = DefaultClusterDomain
	Clock         clock.PassiveClock // nil = the system's
	Logger        *zap.Logger        // nil = none
}

// Authority is the pod's CA with its serving certificate. It does not change
// after Open and is safe for concurrent use.
type Authority struct {
	ca, leaf pair
}

// Open loads the certificates from the directory. It replaces a certificate that is missing,
// damaged, expired or for other names, and logs why. A new serving certificate is signed by the
// present CA. Open replaces the CA itself only if it is unusable, because running applications
// have already read it.
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
	if o.ClusterDomain == "" {
		o.ClusterDomain = DefaultClusterDomain
	}
	want := names(o.ClusterDomain)
	now := o.Clock.Now()

	a := &Authority{}
	var err error
	a.ca, err = load(filepath.Join(o.Directory, caFile))
	if err == nil {
		err = a.ca.usableCA(want, now)
	}
	if err != nil {
		logMaking(o.Logger, "making the pod's certificate authority", err)
		if a.ca, err = makeCA(want, now); err != nil {
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

// subjects are the names in the serving certificate, and the only ones that the CA permits.
type subjects struct {
	dns []string
	ips []net.IP
}

// names returns the names that programs use for the API server: the addresses that the
// injector puts into KUBERNETES_SERVICE_HOST, and the names of the Service.
func names(clusterDomain string) subjects {
	return subjects{
		dns: []string{
			"localhost",
			"kubernetes",
			"kubernetes.default",
			"kubernetes.default.svc",
			"kubernetes.default.svc." + clusterDomain,
		},
		ips: []net.IP{net.IPv4(127, 0, 0, 1).To4(), net.IPv6loopback},
	}
}

// permitted returns each address as a range of one (RFC 5280, 4.2.1.10).
func (s subjects) permitted() (ranges []*net.IPNet) {
	for _, ip := range s.ips {
		bits := 8 * len(ip)
		ranges = append(ranges, &net.IPNet{IP: ip, Mask: net.CIDRMask(bits, bits)})
	}
	return ranges
}

// constrain reports whether the CA certificate permits exactly these names.
func (s subjects) constrain(cert *x509.Certificate) bool {
	return cert.PermittedDNSDomainsCritical && slices.Equal(cert.PermittedDNSDomains, s.dns) &&
		slices.EqualFunc(cert.PermittedIPRanges, s.permitted(), func(a, b *net.IPNet) bool { return a.String() == b.String() })
}

// name reports whether the certificate has exactly these names.
func (s subjects) name(cert *x509.Certificate) bool {
	return slices.Equal(cert.DNSNames, s.dns) && slices.EqualFunc(cert.IPAddresses, s.ips, net.IP.Equal)
}
