// Package wait holds back the pod's applications until the sidecar is ready for them: its
// copy of the service-account directory is written, and its listener completes a TLS
// handshake that verifies against that copy's ca.crt. A client needs both for its first
// request.
//
// Ready does not mean that the link is up: an application starts offline and online alike.
package wait

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	// DefaultTimeout is far above the time of a start, and short enough for a person who waits.
	DefaultTimeout = 60 * time.Second

	firstPause       = 20 * time.Millisecond // a start takes a few of these
	longestPause     = 500 * time.Millisecond
	handshakeTimeout = 5 * time.Second // for one attempt
)

// Options say what to wait for.
type Options struct {
	Mirror   string        // the copy of the service-account directory
	Address  string        // the sidecar's listener, host:port
	Timeout  time.Duration // 0 = DefaultTimeout
	Progress func(error)   // called with the reason for waiting, when it changes; nil = no calls
}

// Ready returns nil as soon as the sidecar is ready. After the timeout, or when ctx ends, it
// returns an error that names what is still missing.
func Ready(ctx context.Context, o Options) error {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	limited, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	start := time.Now()
	pause := firstPause
	var missing error
	for {
		now := check(limited, o)
		if now == nil {
			return nil
		}
		if o.Progress != nil && (missing == nil || missing.Error() != now.Error()) {
			o.Progress(now)
		}
		missing = now
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-limited.Done():
			timer.Stop()
			return fmt.Errorf("sidecar is not ready after %s: %w", time.Since(start).Round(time.Millisecond), missing)
		}
		if time.Since(start) > time.Second {
			pause = min(2*pause, longestPause)
		}
	}
}

// check returns an error that names everything that is missing.
func check(ctx context.Context, o Options) error {
	token := checkFile(filepath.Join(o.Mirror, "token"))
	path := filepath.Join(o.Mirror, "ca.crt")
	if err := checkFile(path); err != nil {
		return errors.Join(token, err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return errors.Join(token, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(content) {
		return errors.Join(token, fmt.Errorf("%s: has no certificate", path))
	}
	return errors.Join(token, checkListener(ctx, o.Address, roots))
}

func checkFile(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: is not written yet", path)
	case err != nil:
		return err
	case info.Size() == 0:
		return fmt.Errorf("%s: is empty", path)
	}
	return nil
}

func checkListener(ctx context.Context, address string, roots *x509.CertPool) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	plain, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("nothing listens on %s: %w", address, err)
	}
	defer plain.Close()
	conn := tls.Client(plain, &tls.Config{
		RootCAs:    roots,
		ServerName: host,
		MinVersion: tls.VersionTLS12,
		// Not HTTP/2: the server would wait for the client preface, and log that it is missing.
		NextProtos: []string{"http/1.1"},
	})
	err = conn.HandshakeContext(ctx)
	var wrong *tls.CertificateVerificationError
	switch {
	case errors.As(err, &wrong):
		return fmt.Errorf("another program listens on %s, or ca.crt is not this sidecar's: %w", address, err)
	case err != nil:
		return fmt.Errorf("no TLS on %s: %w", address, err)
	}
	return conn.Close()
}
