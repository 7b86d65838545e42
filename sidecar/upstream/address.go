package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Connections to one address.
const (
	idleConnTimeout   = 90 * time.Second // below the usual limits of load balancers
	idleConnsPerHost  = 16               // HTTP/1.1 only: HTTP/2 shares one connection
	expectContinue    = time.Second      // for an upload with Expect: 100-continue
	sessionCache      = 4                // TLS sessions to resume, which saves bytes on a thin link
	pingTimeout       = 5 * time.Second
	writeStallTimeout = 15 * time.Second // for sent bytes that are not acknowledged
	// pingAfter is the silence on an HTTP/2 connection after which a PING is sent. Probes notice a
	// dead connection sooner, but they see only the newest one.
	pingAfter = 10 * time.Second
	// receiveBuffer is how many bytes of a response may wait for their reader. net/http's default
	// of 4 MiB is a lot for a pod of 30 MiB. Responses arrive compressed, so 1 MiB holds a large
	// list.
	receiveBuffer = 1 << 20
)

// address is one address of the API server: its connections and its health.
type address struct {
	server Server
	name   string // the URL as configured
	trust  *trust
	logger *zap.Logger
	dialer net.Dialer

	probing atomic.Bool // a probe is in flight

	mu           sync.Mutex
	pool         *pool
	conns        map[*conn]struct{}
	silentConns  []*conn         // a probe timed out on them, and none was answered since
	closeReason  error           // not nil once the address is closed for good
	ctx          context.Context // ends when the address is down; its cause is an interrupted
	interrupt    context.CancelCauseFunc
	failedProbes int    // in succession
	degraded     bool   // a request failed since the last answered probe
	lastErr      error  // nil before the first failure and after an answered probe
	lastLogged   string // kind of the last log line: "" at first, "up" while healthy
}

// pool is the connections that were made with one set of roots and without a failed probe between.
type pool struct{ http2, http1 *http.Transport }

func newAddress(server Server, trust *trust, connectTimeout time.Duration, logger *zap.Logger) *address {
	a := &address{
		server: server,
		name:   server.URL.String(),
		trust:  trust,
		logger: logger,
		dialer: net.Dialer{
			Timeout:         connectTimeout,
			KeepAliveConfig: keepAlive,
			Control:         userTimeout(writeStallTimeout),
		},
		conns: map[*conn]struct{}{},
	}
	a.ctx, a.interrupt = context.WithCancelCause(context.Background())
	a.renewPool()
	return a
}

// renewPool makes new requests use new connections. Requests in flight keep theirs.
func (a *address) renewPool() {
	roots, err := a.trust.roots()
	if err != nil {
		return // no connection is made before there are roots
	}
	fresh := &pool{http2: a.transport(roots, true), http1: a.transport(roots, false)}
	a.mu.Lock()
	old := a.pool
	a.pool = fresh
	a.mu.Unlock()
	old.close()
}

func (p *pool) close() {
	if p != nil {
		p.http2.CloseIdleConnections()
		p.http1.CloseIdleConnections()
	}
}

func (a *address) transport(roots *x509.CertPool, h2 bool) *http.Transport {
	t := &http.Transport{
		Proxy:       nil, // the environment's proxy is meant for the application
		DialContext: a.dial,
		TLSClientConfig: &tls.Config{
			RootCAs:            roots,
			ServerName:         a.server.TLSServerName,
			ClientSessionCache: tls.NewLRUClientSessionCache(sessionCache),
		},
		TLSHandshakeTimeout:   a.dialer.Timeout,
		MaxIdleConnsPerHost:   idleConnsPerHost,
		IdleConnTimeout:       idleConnTimeout,
		ExpectContinueTimeout: expectContinue,
		Protocols:             new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			SendPingTimeout:           pingAfter,
			PingTimeout:               pingTimeout,
			WriteByteTimeout:          writeStallTimeout,
			MaxReceiveBufferPerStream: receiveBuffer,
		},
	}
	t.Protocols.SetHTTP1(true)
	t.Protocols.SetHTTP2(h2)
	return t
}

// current returns the connections to use, and the context that ends when the address is down.
func (a *address) current() (*pool, context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pool, a.ctx
}

// Reasons to close an address.
var (
	errStopped = errors.New("the sidecar is shutting down")
	errRemoved = errors.New("upstream.servers was changed")
)

// interruptAll ends all requests in flight and closes all connections.
func (a *address) interruptAll(reason error) { a.disconnect(reason, false) }

// close does the same as interruptAll. Afterwards no new connections are made.
func (a *address) close(reason error) { a.disconnect(reason, true) }

func (a *address) disconnect(reason error, forGood bool) {
	a.mu.Lock()
	a.interrupt(interrupted{reason})
	if forGood {
		a.closeReason = reason
	}
	a.ctx, a.interrupt = context.WithCancelCause(context.Background())
	a.silentConns = nil
	open := make([]*conn, 0, len(a.conns))
	for each := range a.conns {
		open = append(open, each)
	}
	old := a.pool
	a.mu.Unlock()
	for _, each := range open {
		_ = each.Close()
	}
	old.close()
}

// recordProbe records the outcome of a probe. Enough failures in succession make the address down.
func (a *address) recordProbe(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		for _, each := range a.silentConns {
			each.closeIfSilent()
		}
		a.failedProbes, a.degraded, a.lastErr, a.silentConns = 0, false, nil, nil
		if a.lastLogged != "up" {
			a.lastLogged = "up"
			a.logger.Info("API server answers", zap.String("server", a.name))
		}
		return
	}
	a.failedProbes++
	a.recordFailure(err)
}

// requestFailed makes other addresses preferred until a probe of this one is answered.
func (a *address) requestFailed(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.degraded = true
	a.recordFailure(err)
}

// requestAnswered restarts the count of failed probes, as an answer does for the state of the link.
// An address that is down stays down until a probe is answered.
func (a *address) requestAnswered(threshold int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failedProbes < threshold {
		a.failedProbes = 0
	}
}

// recordFailure keeps the error, and logs it if it is of another kind than the one before.
func (a *address) recordFailure(err error) {
	a.lastErr = err
	kind, advice := diagnose(err, a.trust.file)
	if kind == a.lastLogged {
		return
	}
	a.lastLogged = kind
	a.logger.Warn("API server does not answer",
		zap.String("server", a.name), zap.Error(err), zap.String("check", advice))
}

// health is the state of one address, the best first.
type health int

const (
	healthy  health = iota // nothing has failed since the last answered probe
	degraded               // a request or a probe has failed
	down                   // as many probes in succession have failed as the threshold says
)

func (a *address) health(threshold int) health {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.failedProbes >= threshold:
		return down
	case a.failedProbes > 0 || a.degraded:
		return degraded
	}
	return healthy
}

// serverError returns the address with its last error.
func (a *address) serverError() ServerError {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lastErr == nil {
		return ServerError{a.name, errors.New("not tried")}
	}
	return ServerError{a.name, a.lastErr}
}

// target returns the URL of a request at this address. An address may have a path of its own, as
// clusters behind a management server have.
func (a *address) target(u *url.URL) *url.URL {
	out := *u
	out.Scheme, out.Host, out.User = "https", a.server.URL.Host, nil
	if base := strings.TrimSuffix(a.server.URL.Path, "/"); base != "" {
		if u.RawPath != "" {
			out.RawPath = strings.TrimSuffix(a.server.URL.EscapedPath(), "/") + u.RawPath
		}
		out.Path = base + u.Path
	}
	return &out
}
