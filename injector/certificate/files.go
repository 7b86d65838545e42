package certificate

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"os"
	"sync"

	"go.uber.org/zap"
)

// Files is a serving certificate in two files, which may be replaced at any time.
//
// It reads the files at every handshake. Handshakes are rare, because API servers keep their
// connections, and two small reads cost less than the signature that follows. So no watch can
// be lost, and every way to replace files works: rename, write in place, the symlinks of a
// Secret volume. While the two files do not match, as between two writes, the previous
// certificate stays in use.
type Files struct {
	certFile, keyFile string
	log               *zap.Logger

	mu      sync.Mutex
	cert    []byte // the contents that current was made from
	key     []byte
	current *tls.Certificate
	failed  string // the last logged failure; "" = none since the last success
}

// LoadFiles reads the certificate chain and the private key, both in PEM.
func LoadFiles(certFile, keyFile string, log *zap.Logger) (*Files, error) {
	f := &Files{certFile: certFile, keyFile: keyFile, log: log}
	if err := f.reload(); err != nil {
		return nil, err
	}
	return f, nil
}

// Get is for tls.Config.GetCertificate. It never fails: the last valid certificate stays.
func (f *Files) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.reload()
	if err == nil {
		f.failed = ""
		return f.current, nil
	}
	failures.Inc()
	if err.Error() != f.failed {
		f.failed = err.Error()
		f.log.Warn("cannot use the certificate files; keeping the previous certificate", zap.Error(err))
	}
	return f.current, nil
}

// reload replaces current if the files have changed. The caller holds mu, except in LoadFiles.
func (f *Files) reload() error {
	cert, err := os.ReadFile(f.certFile)
	if err != nil {
		return err
	}
	key, err := os.ReadFile(f.keyFile)
	if err != nil {
		return err
	}
	if f.current != nil && bytes.Equal(cert, f.cert) && bytes.Equal(key, f.key) {
		return nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("%s with %s: %w", f.certFile, f.keyFile, err)
	}
	f.cert, f.key, f.current = cert, key, &pair
	logInUse(f.log, pair.Leaf)
	return nil
}
