package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"rockpool.dev/sidecar/api/origin"
	"rockpool.dev/sidecar/pod/account"
	"rockpool.dev/sidecar/upstream"
)

// maxClockDistance is how far the node's clock may be from the API server's.
const maxClockDistance = 30 * time.Second

// trouble is why an address does not do.
type trouble struct {
	code Code
	err  error
}

func (t *trouble) Error() string { return t.err.Error() }

// addresses asks each address who it is. If one is good, the others only warn.
func (x *examination) addresses(ctx context.Context) {
	if len(x.Servers) == 0 {
		x.found(Fail, NoAddress, "no address of the API server is known")
		return
	}
	var failed []func(Level)
	level := Fail
	for _, s := range x.Servers {
		began := x.Now()
		distance, err := x.ask(ctx, s)
		var t *trouble
		if errors.As(err, &t) {
			failed = append(failed, func(l Level) { x.found(l, t.code, "%s: %v", s.URL, t.err) })
			continue
		}
		level = Warn
		x.ok(Address, "%s is an API server that accepts the pod's token; it took %s", s.URL, x.Now().Sub(began).Round(time.Millisecond))
		if distance.Abs() > maxClockDistance {
			x.found(Warn, ClockOff, "the node's clock is %s from that of %s", distance.Abs().Round(time.Second), s.URL)
		}
	}
	for _, tell := range failed {
		tell(level)
	}
}

// ask connects to an address step by step, and returns how far the node's clock is ahead of the
// server's. The error is a *trouble.
func (x *examination) ask(ctx context.Context, s upstream.Server) (distance time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, x.Timeout)
	defer cancel()
	port := s.URL.Port()
	if port == "" {
		port = "443"
	}
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", net.JoinHostPort(s.URL.Hostname(), port))
	if err != nil {
		return 0, dialTrouble(err)
	}
	defer raw.Close()
	config, err := x.trust(s)
	if err != nil {
		return 0, err
	}
	secure := tls.Client(raw, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return 0, tlsTrouble(err)
	}
	resp, err := x.version(ctx, s, secure)
	if err != nil {
		return 0, &trouble{AddressBroken, err}
	}
	defer resp.Body.Close()
	switch {
	case !origin.FromAPIServer(resp):
		return 0, &trouble{AddressForeign, fmt.Errorf("something else than the API server answers, with status %s", resp.Status)}
	case resp.StatusCode == http.StatusUnauthorized:
		return 0, &trouble{TokenRefused, errors.New("the API server does not accept the pod's token (401)")}
	}
	if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		distance = x.Now().Sub(at)
	}
	return distance, nil
}

// trust is the TLS configuration for an address.
func (x *examination) trust(s upstream.Server) (*tls.Config, error) {
	file := s.CAFile
	if file == "" {
		file = filepath.Join(x.Account, account.CAFile)
	}
	ca, err := os.ReadFile(file)
	roots := x509.NewCertPool()
	if err == nil && !roots.AppendCertsFromPEM(ca) {
		err = fmt.Errorf("%s has no certificate", file)
	}
	if err != nil {
		return nil, &trouble{AddressUntrusted, err}
	}
	name := s.TLSServerName
	if name == "" {
		name = s.URL.Hostname()
	}
	return &tls.Config{RootCAs: roots, ServerName: name, NextProtos: []string{"http/1.1"}}, nil
}

// version asks for the API server's own list of groups over a connection, as the pod. It is allowed
// to every account.
func (x *examination) version(ctx context.Context, s upstream.Server, over net.Conn) (*http.Response, error) {
	transport := &http.Transport{DisableKeepAlives: true, DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return over, nil }}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL.JoinPath("api").String(), nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	if x.token != "" {
		r.Header.Set("Authorization", "Bearer "+x.token)
	}
	return transport.RoundTrip(r)
}

func dialTrouble(err error) error {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return &trouble{AddressUnresolved, err}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &trouble{AddressRefused, err}
	}
	return &trouble{AddressSilent, err}
}

func tlsTrouble(err error) error {
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		timeout   net.Error
	)
	switch {
	case errors.As(err, &authority):
		return &trouble{AddressUntrusted, err}
	case errors.As(err, &name):
		return &trouble{AddressWrongName, err}
	case errors.As(err, &invalid):
		return &trouble{AddressCertificate, err}
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return &trouble{AddressSilent, fmt.Errorf("it accepts connections, and is silent then: %w", err)}
	}
	return &trouble{AddressBroken, err}
}
