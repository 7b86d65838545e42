package wait

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rockpool.dev/sidecar/pod/certs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func authority(t *testing.T) *certs.Authority {
	t.Helper()
	a, err := certs.Open(certs.Options{Directory: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// serve completes TLS handshakes until the test ends. Without an authority it accepts and
// closes, like a program that does not speak TLS.
func serve(t *testing.T, listener net.Listener, a *certs.Authority) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if a != nil {
				tls.Server(conn, a.TLSConfig()).Handshake()
			}
			conn.Close()
		}
	})
	t.Cleanup(func() { listener.Close(); wg.Wait() })
}

func listen(t *testing.T, host string) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Skipf("listen on %s: %v", host, err)
	}
	return listener
}

func put(t *testing.T, directory, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(directory, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestReadyAtOnce(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			a, mirror, listener := authority(t), t.TempDir(), listen(t, host)
			serve(t, listener, a)
			put(t, mirror, "token", []byte("x"))
			put(t, mirror, "ca.crt", a.CAPEM())
			err := Ready(t.Context(), Options{Mirror: mirror, Address: listener.Addr().String(), Progress: func(err error) {
				t.Errorf("not ready at the first check: %v", err)
			}})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestReadyStepByStep starts the sidecar in pieces: each after Ready has reported it missing.
func TestReadyStepByStep(t *testing.T) {
	a, mirror, listener := authority(t), t.TempDir(), listen(t, "127.0.0.1")
	address := listener.Addr().String()
	listener.Close()
	var reported []string
	step := func(err error) {
		reported = append(reported, err.Error())
		switch len(reported) {
		case 1:
			put(t, mirror, "ca.crt", a.CAPEM())
		case 2:
			put(t, mirror, "token", []byte("x"))
		case 3:
			second, err := net.Listen("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			serve(t, second, a)
		}
	}
	if err := Ready(t.Context(), Options{Mirror: mirror, Address: address, Progress: step}); err != nil {
		t.Fatal(err)
	}
	if len(reported) != 3 ||
		!strings.Contains(reported[0], "token: is not written") || !strings.Contains(reported[0], "ca.crt: is not written") ||
		!strings.Contains(reported[1], "token: is not written") || !strings.Contains(reported[1], "nothing listens") ||
		strings.Contains(reported[2], "token") || !strings.Contains(reported[2], "nothing listens on "+address) {
		t.Errorf("reported: %q", reported)
	}
}

func TestNotReady(t *testing.T) {
	own, other := authority(t), authority(t)
	tests := map[string]struct {
		token, ca []byte
		serve     *certs.Authority
		want      string
	}{
		"no files":                     {nil, nil, own, "token: is not written yet"},
		"no token":                     {nil, own.CAPEM(), own, "token: is not written yet"},
		"an empty token":               {[]byte{}, own.CAPEM(), own, "token: is empty"},
		"no CA":                        {[]byte("x"), nil, own, "ca.crt: is not written yet"},
		"an empty CA":                  {[]byte("x"), []byte{}, own, "ca.crt: is empty"},
		"an invalid CA":                {[]byte("x"), []byte("x"), own, "ca.crt: has no certificate"},
		"another program on the port":  {[]byte("x"), own.CAPEM(), other, "another program listens"},
		"a program that speaks no TLS": {[]byte("x"), own.CAPEM(), nil, "no TLS on"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each lasts its timeout, long enough for a handshake on a busy machine
			mirror, listener := t.TempDir(), listen(t, "127.0.0.1")
			serve(t, listener, test.serve)
			if test.token != nil {
				put(t, mirror, "token", test.token)
			}
			if test.ca != nil {
				put(t, mirror, "ca.crt", test.ca)
			}
			err := Ready(t.Context(), Options{Mirror: mirror, Address: listener.Addr().String(), Timeout: 2 * time.Second})
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "not ready after") {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestASilentListenerDoesNotOutlastTheContext(t *testing.T) {
	a, mirror, listener := authority(t), t.TempDir(), listen(t, "127.0.0.1")
	defer listener.Close() // the kernel accepts, but no program answers
	put(t, mirror, "token", []byte("x"))
	put(t, mirror, "ca.crt", a.CAPEM())
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := Ready(ctx, Options{Mirror: mirror, Address: listener.Addr().String()})
	if err == nil || !strings.Contains(err.Error(), "no TLS on") {
		t.Errorf("got %v", err)
	}
}
