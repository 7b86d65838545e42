// Package certs is the pod's own certificate authority and the certificate
// with which the sidecar serves the pod's applications on loopback.
//
// Applications find the authority in the ca.crt of the service-account mirror,
// and most read that file once. So the authority is kept for as long as the pod
// lives: in a private directory in memory, from which a restarted sidecar takes
// it again. It never leaves the pod, and name constraints make it worthless for
// anything but the pod's own loopback, should its key leak.
//
// It issues nothing for anybody else and talks to no API.
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

// Files in the private directory. Each holds a certificate and its key, so that
// one rename replaces both: there is no moment at which they do not fit.
const (
	caFile   = "ca.pem"
	leafFile = "serving.pem"
)

// Options say where the certificates are kept and for what they are.
type Options struct {
	Directory     string             // made with mode 0700 if missing; in memory, never on a disk
	ClusterDomain string             // empty = DefaultClusterDomain
	Clock         clock.PassiveClock // nil = the system's
	Logger        *zap.Logger        // nil = none
}

// Authority is the pod's CA with its serving certificate. It does not change
// after Open and is safe for concurrent use.
type Authority struct {
	ca, leaf pair
}

// Open takes the certificates from the directory, or makes what is missing,
// damaged, expired or for other names, and says in the log why. A serving
// certificate is made anew under the CA that is there; only a CA that cannot
// be used is replaced, because applications that run have already read it.
//
// A directory that cannot be written is not an error: the certificates are then
// kept in memory, which is logged, since applications will distrust the sidecar
// after its next restart.
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
		note(o.Logger, "making the pod's certificate authority", err)
		if a.ca, err = makeCA(want, now); err != nil {
			return nil, fmt.Errorf("make the pod's certificate authority: %w", err)
		}
		keep(o, caFile, a.ca)
	}

	a.leaf, err = load(filepath.Join(o.Directory, leafFile))
	if err == nil {
		err = a.leaf.usableLeaf(a.ca, want, now)
	}
	if err != nil {
		note(o.Logger, "making the pod's serving certificate", err)
		if a.leaf, err = makeLeaf(a.ca, want, now); err != nil {
			return nil, fmt.Errorf("make the pod's serving certificate: %w", err)
		}
		keep(o, leafFile, a.leaf)
	}
	return a, nil
}

// note logs why something is made: at the first start there is nothing to say.
func note(log *zap.Logger, what string, why error) {
	if errors.Is(why, fs.ErrNotExist) {
		log.Info(what)
		return
	}
	log.Warn(what+" anew", zap.Error(why))
}

func keep(o Options, name string, p pair) {
	path := filepath.Join(o.Directory, name)
	err := os.MkdirAll(o.Directory, 0o700)
	if err == nil {
		err = p.save(path)
	}
	if err != nil {
		o.Logger.Error("cannot keep a certificate: after a restart of the sidecar, running applications will not trust it; make the private directory writable",
			zap.String("path", path), zap.Error(err))
	}
}

// CAPEM is the CA's certificate, PEM-encoded with a newline at its end: what
// the mirror adds to ca.crt.
func (a *Authority) CAPEM() []byte { return a.ca.certPEM() }

// TLSConfig is for the sidecar's server. Each call gives a new one.
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

// subjects are the names that the serving certificate has and the CA permits.
type subjects struct {
	dns []string
	ips []net.IP
}

// names are those by which programs know the API server: the addresses that
// the injector puts into KUBERNETES_SERVICE_HOST, and the names of the Service.
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

// permitted gives each address as a range of one (RFC 5280, 4.2.1.10).
func (s subjects) permitted() (ranges []*net.IPNet) {
	for _, ip := range s.ips {
		bits := 8 * len(ip)
		ranges = append(ranges, &net.IPNet{IP: ip, Mask: net.CIDRMask(bits, bits)})
	}
	return ranges
}

func (s subjects) constrain(cert *x509.Certificate) bool {
	return cert.PermittedDNSDomainsCritical && slices.Equal(cert.PermittedDNSDomains, s.dns) &&
		slices.EqualFunc(cert.PermittedIPRanges, s.permitted(), func(a, b *net.IPNet) bool { return a.String() == b.String() })
}

func (s subjects) name(cert *x509.Certificate) bool {
	return slices.Equal(cert.DNSNames, s.dns) && slices.EqualFunc(cert.IPAddresses, s.ips, net.IP.Equal)
}
