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
	idleConnsPerHost  = 16               // HTTP/1.1 only: HTTP/2 shares one
	expectContinue    = time.Second      // for an upload that asked first
	sessionCache      = 4                // TLS sessions to resume, which saves bytes on a thin link
	pingAfter         = 10 * time.Second // of silence on an HTTP/2 connection; probes notice sooner, but only on the newest one
	pingTimeout       = 5 * time.Second
	writeStallTimeout = 15 * time.Second // for bytes that TCP cannot get rid of
	// receiveBuffer is how much of an answer may wait for its reader, in bytes. net/http would take 4 MiB, which in
	// a pod of 30 MiB counts; compressed, as answers come, this is a large list.
	receiveBuffer = 1 << 20
)

// candidate is one address: its connections, and what is known of it.
type candidate struct {
	server Server
	name   string // the URL, as people configured it
	trust  *trust
	logger *zap.Logger
	dialer net.Dialer

	probing atomic.Bool // a probe is on its way

	mu       sync.Mutex
	pool     *pool
	conns    map[*conn]struct{}
	silent   []*conn         // that a probe was given up on, and none was answered since
	closed   error           // not nil: for good
	link     context.Context // ended, with a cut as its cause, when the address is found to be down
	sever    context.CancelCauseFunc
	failures int    // probes in succession
	troubled bool   // a request failed since the last probe that was answered
	reason   error  // of the last failure; nil while all is well
	logged   string // kind of what the log was last told; "" at first, "up" when well
}

// pool is the connections that one set of roots and one stretch of luck have in common.
type pool struct{ http2, http1 *http.Transport }

func newCandidate(server Server, trust *trust, connectTimeout time.Duration, logger *zap.Logger) *candidate {
	c := &candidate{
		server: server,
		name:   server.URL.String(),
		trust:  trust,
		logger: logger,
		dialer: net.Dialer{Timeout: connectTimeout, KeepAliveConfig: keepAlive, Control: giveUpAfter(writeStallTimeout)},
		conns:  map[*conn]struct{}{},
	}
	c.link, c.sever = context.WithCancelCause(context.Background())
	c.renew()
	return c
}

// renew makes coming requests use new connections. Those under way keep theirs.
func (c *candidate) renew() {
	roots, err := c.trust.roots()
	if err != nil {
		return // no connection is made before there are some
	}
	fresh := &pool{http2: c.transport(roots, true), http1: c.transport(roots, false)}
	c.mu.Lock()
	old := c.pool
	c.pool = fresh
	c.mu.Unlock()
	old.close()
}

func (p *pool) close() {
	if p != nil {
		p.http2.CloseIdleConnections()
		p.http1.CloseIdleConnections()
	}
}

func (c *candidate) transport(roots *x509.CertPool, h2 bool) *http.Transport {
	t := &http.Transport{
		Proxy:       nil, // the environment is the application's
		DialContext: c.dial,
		TLSClientConfig: &tls.Config{
			RootCAs:            roots,
			ServerName:         c.server.TLSServerName,
			ClientSessionCache: tls.NewLRUClientSessionCache(sessionCache),
		},
		TLSHandshakeTimeout:   c.dialer.Timeout,
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

// current returns the connections to use, and the context that ends with the address.
func (c *candidate) current() (*pool, context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pool, c.link
}

// Reasons to end an address for good.
var (
	errStopped = errors.New("the sidecar is shutting down")
	errRemoved = errors.New("upstream.servers was changed")
)

// severAll ends all that is under way, and closes all connections.
func (c *candidate) severAll(reason error) { c.cut(reason, false) }

// retire is severAll, after which there will be no other connections.
func (c *candidate) retire(reason error) { c.cut(reason, true) }

func (c *candidate) cut(reason error, forGood bool) {
	c.mu.Lock()
	c.sever(cut{reason})
	if forGood {
		c.closed = reason
	}
	c.link, c.sever = context.WithCancelCause(context.Background())
	c.silent = nil
	open := make([]*conn, 0, len(c.conns))
	for each := range c.conns {
		open = append(open, each)
	}
	old := c.pool
	c.mu.Unlock()
	for _, each := range open {
		_ = each.Close()
	}
	old.close()
}

// probed takes the outcome of a probe. With so many failures in succession the address is down.
func (c *candidate) probed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		for _, each := range c.silent {
			each.strand()
		}
		c.failures, c.troubled, c.reason, c.silent = 0, false, nil, nil
		if c.logged != "up" {
			c.logged = "up"
			c.logger.Info("API server answers", zap.String("server", c.name))
		}
		return
	}
	c.failures++
	c.failed(err)
}

// requestFailed makes other addresses preferred until a probe is answered.
func (c *candidate) requestFailed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.troubled = true
	c.failed(err)
}

// requestAnswered parts failed probes from those that fail after it, as the state of the link has it.
func (c *candidate) requestAnswered(threshold int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failures < threshold {
		c.failures = 0
	}
}

// failed keeps the reason, and logs it if it is not like the one before.
func (c *candidate) failed(err error) {
	c.reason = err
	kind, advice := diagnose(err, c.trust.file)
	if kind == c.logged {
		return
	}
	c.logged = kind
	c.logger.Warn("API server does not answer", zap.String("server", c.name), zap.Error(err), zap.String("check", advice))
}

// health is what is known of an address, the best first.
type health int

const (
	well    health = iota // as far as is known
	trouble               // a request or a probe has failed
	down                  // as many probes in succession as the threshold says
)

func (c *candidate) health(threshold int) health {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.failures >= threshold:
		return down
	case c.failures > 0 || c.troubled:
		return trouble
	}
	return well
}

// why returns the address with the reason of its last failure.
func (c *candidate) why() ServerError {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason == nil {
		return ServerError{c.name, errors.New("not tried")}
	}
	return ServerError{c.name, c.reason}
}

// target returns the URL of a request at this address. An address may have a path of its own, as
// clusters behind a management server do.
func (c *candidate) target(u *url.URL) *url.URL {
	out := *u
	out.Scheme, out.Host, out.User = "https", c.server.URL.Host, nil
	if base := strings.TrimSuffix(c.server.URL.Path, "/"); base != "" {
		if u.RawPath != "" {
			out.RawPath = strings.TrimSuffix(c.server.URL.EscapedPath(), "/") + u.RawPath
		}
		out.Path = base + u.Path
	}
	return &out
}
