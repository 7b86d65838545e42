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
// It looks at the files at every handshake: these are rare, since API servers keep their
// connections, and two small reads cost less than the signature that follows. So there is no
// watch to lose, and none of the ways in which files get replaced (rename, write in place,
// the symlinks of a Secret volume) is special. While the two files do not fit together,
// as between two writes, the certificate before them stays in use.
type Files struct {
	certFile, keyFile string
	log               *zap.Logger

	mu      sync.Mutex
	cert    []byte // the contents that current was made of
	key     []byte
	current *tls.Certificate
	failed  string // the last failure, logged once
}

// LoadFiles reads the certificate chain and the private key, both in PEM.
func LoadFiles(certFile, keyFile string, log *zap.Logger) (*Files, error) {
	f := &Files{certFile: certFile, keyFile: keyFile, log: log}
	if err := f.reload(); err != nil {
		return nil, err
	}
	return f, nil
}

// Get is for tls.Config.GetCertificate. It never fails: there is always a certificate
// that was once good.
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
		f.log.Warn("the certificate files cannot be used, the certificate before them stays", zap.Error(err))
	}
	return f.current, nil
}

// reload replaces current if the files have changed. The caller holds mu, or is the only one.
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
	inUse(f.log, pair.Leaf)
	return nil
}
