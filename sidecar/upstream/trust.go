package upstream

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
)

// trust is a CA file, read again when it changes: kubelet replaces it when the cluster's CA is
// rotated.
type trust struct {
	file string // "" for the system's roots

	mu    sync.Mutex
	data  []byte
	roots *roots // nil: none were ever read
	err   error  // of the last read
}

// roots are the CA certificates by which connections are verified: one value for one content of the
// file.
type roots struct{ pool *x509.CertPool } // nil pool: the system's

// trustError is a CA file that cannot be used.
type trustError struct{ err error }

func (e *trustError) Error() string { return e.err.Error() }
func (e *trustError) Unwrap() error { return e.err }

// reload reads the file and reports whether other roots take the place of the ones before. If the
// file has become unusable, the roots stay.
func (t *trust) reload() (changed bool, err error) {
	if t.file == "" {
		return false, nil
	}
	data, err := os.ReadFile(t.file)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil && bytes.Equal(data, t.data) && t.roots != nil {
		t.err = nil
		return false, nil
	}
	pool := x509.NewCertPool()
	switch {
	case err != nil:
		t.err = &trustError{fmt.Errorf("read CA file: %w", err)}
	case !pool.AppendCertsFromPEM(data):
		t.err = &trustError{fmt.Errorf("read CA file: %w", &os.PathError{Op: "parse", Path: t.file, Err: errNoCertificate})}
	default:
		changed = t.roots != nil
		t.data, t.roots, t.err = data, &roots{pool}, nil
		return changed, nil
	}
	return false, t.err
}

var errNoCertificate = errors.New("no PEM certificate in the file")

// current returns the roots. It returns an error if none were ever read.
func (t *trust) current() (*roots, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.roots != nil:
		return t.roots, nil
	case t.file == "":
		t.roots = &roots{}
		return t.roots, nil
	case t.err != nil:
		return nil, t.err
	}
	return nil, &trustError{fmt.Errorf("CA file %s has not been read", t.file)}
}
