package webhook

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"os"
	"sync"

	"go.uber.org/zap"
)

// Certificate is a serving certificate in two files, which may be replaced at any time.
//
// It looks at the files at every handshake: these are rare, since API servers keep their
// connections, and two small reads cost less than the signature that follows. So there is no
// watch to lose, and none of the ways in which files get replaced (rename, write in place,
// the symlinks of a Secret volume) is special. While the two files do not fit together,
// as between two writes, the certificate before them stays in use.
type Certificate struct {
	certFile, keyFile string
	log               *zap.Logger

	mu      sync.Mutex
	cert    []byte // the contents that current was made of
	key     []byte
	current *tls.Certificate
	failed  string // the last failure, logged once
}

// LoadCertificate reads the certificate chain and the private key, both in PEM.
func LoadCertificate(certFile, keyFile string, log *zap.Logger) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile, log: log}
	if err := c.reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// Get is for tls.Config.GetCertificate. It never fails: there is always a certificate
// that was once good.
func (c *Certificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.reload()
	if err == nil {
		c.failed = ""
		return c.current, nil
	}
	reloadFailures.Inc()
	if err.Error() != c.failed {
		c.failed = err.Error()
		c.log.Warn("the certificate files cannot be used, the certificate before them stays", zap.Error(err))
	}
	return c.current, nil
}

// reload replaces current if the files have changed. The caller holds mu, or is the only one.
func (c *Certificate) reload() error {
	cert, err := os.ReadFile(c.certFile)
	if err != nil {
		return err
	}
	key, err := os.ReadFile(c.keyFile)
	if err != nil {
		return err
	}
	if c.current != nil && bytes.Equal(cert, c.cert) && bytes.Equal(key, c.key) {
		return nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("%s with %s: %w", c.certFile, c.keyFile, err)
	}
	c.cert, c.key, c.current = cert, key, &pair
	certificateExpiry.Set(float64(pair.Leaf.NotAfter.Unix()))
	c.log.Info("certificate in use", zap.String("file", c.certFile), zap.Strings("names", pair.Leaf.DNSNames), zap.Time("notAfter", pair.Leaf.NotAfter))
	return nil
}
