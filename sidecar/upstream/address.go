package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/http2"
	"k8s.io/utils/clock"
)

// Connections to one address.
const (
	idleConnTimeout   = 90 * time.Second // below the usual limits of load balancers
	idleConnsPerHost  = 16               // HTTP/1.1 only: HTTP/2 shares one connection
	sessionCache      = 4                // TLS sessions to resume, which saves bytes on a thin link
	writeStallTimeout = 15 * time.Second // for sent bytes that are not acknowledged
)

const (
	// firstRetry is the longest wait before an address that is down is tried again. It doubles with
	// each failure, up to Settings.RetryInterval. The wait is a random part of that.
	firstRetry = time.Second
	// wakeInterval is the shortest time between two attempts that requests wake.
	wakeInterval = 2 * time.Second
)

// address is one address of the API server: its connections and their evidence.
type address struct {
	server  Server
	name    string // the URL as configured
	trust   *trust
	logger  *zap.Logger
	clock   clock.WithTickerAndDelayedExecution
	dialer  net.Dialer
	changed func() // the evidence has
	wanted  func() bool
	// http2 uses the connections of this address as its pool. It is the one HTTP/2 client that can
	// send a PING when it is asked to; http.ClientConn cannot.
	http2 *http2.Transport //nolint:staticcheck
	http1 *http.Transport
	ctx   context.Context // the life of the address
	end   context.CancelFunc
	goes  sync.WaitGroup
	heard atomic.Int64  // when the latest byte came over a verified connection, ns since 1970
	look  chan struct{} // has a value when the retries should look at the evidence again
	woken chan bool     // has a value when an attempt is wanted soon; true: at once
	used  atomic.Bool   // by a request, since it was last asked whether it is ready

	mu          sync.Mutex
	settings    Settings
	conns       []*conn
	dialing     *dialing // nil: no connection is on its way
	tried       time.Time
	failures    int // dials that have failed in succession
	failed      time.Time
	rtt         time.Duration
	http1Only   bool
	sessions    tls.ClientSessionCache
	sessionsOf  *roots
	unready     int   // answers of /readyz in succession that were none or a 5xx
	ready       bool  // by /readyz; only chooses among several addresses
	closeReason error // not nil once the address is closed for good
	lastErr     error // nil before the first failure and after a verified connection
	lastLogged  string
}

func newAddress(server Server, trust *trust, settings Settings, u *Upstream) *address {
	a := &address{
		server: server, name: server.URL.String(), trust: trust, settings: settings,
		logger: u.logger, clock: u.clock, changed: u.refresh,
		dialer: net.Dialer{KeepAliveConfig: keepAlive, Control: userTimeout(writeStallTimeout)},
		look:   make(chan struct{}, 1), woken: make(chan bool, 1), ready: true,
	}
	a.wanted = func() bool { return u.plan.Load().wanted(a) }
	a.ctx, a.end = context.WithCancel(context.Background())
	a.http2 = &http2.Transport{ //nolint:staticcheck // see the field
		ConnPool: pool{a}, IdleConnTimeout: idleConnTimeout, WriteByteTimeout: writeStallTimeout,
		StrictMaxConcurrentStreams: false,
	}
	a.http1 = &http.Transport{
		Proxy: nil, // the environment's proxy is meant for the application
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := a.dial(ctx, &dialing{progress: a.clock.Now()}, "http/1.1")
			if a.dialed(err); err != nil {
				return nil, &dialError{err}
			}
			return c, nil
		},
		MaxIdleConnsPerHost: idleConnsPerHost, IdleConnTimeout: idleConnTimeout,
	}
	a.goes.Go(a.retry)
	return a
}

// pool lets the HTTP/2 transport use the connections of an address.
type pool struct{ *address }

// GetClientConn gives the connection for a request, which may have to wait for it.
func (p pool) GetClientConn(r *http.Request, _ string) (*http2.ClientConn, error) {
	a := p.address
	for {
		a.mu.Lock()
		for _, c := range slices.Backward(a.conns) {
			if c.http2 != nil && c.usable() && c.http2.ReserveNewRequest() {
				a.mu.Unlock()
				attemptOf(r.Context()).on(c)
				return c.http2, nil
			}
		}
		if a.closeReason != nil {
			a.mu.Unlock()
			return nil, &dialError{a.closeReason}
		}
		d := a.connect()
		a.mu.Unlock()
		select {
		case <-d.done:
		case <-r.Context().Done():
			return nil, &dialError{r.Context().Err()}
		}
		switch {
		case d.err != nil:
			return nil, &dialError{d.err}
		case a.speaksHTTP1():
			return nil, errNotHTTP2
		}
	}
}

// MarkDead is part of the interface; a connection that is closed takes itself out.
func (pool) MarkDead(*http2.ClientConn) {}

// errNotHTTP2 says that an address speaks HTTP/1.1 only.
var errNotHTTP2 = errors.New("it does not speak HTTP/2")

func (a *address) speaksHTTP1() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.http1Only
}

// add takes a verified connection into the list.
func (a *address) add(c *conn) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closeReason != nil {
		_ = c.socket.Conn.Close()
		return a.closeReason
	}
	a.conns = append(a.conns, c)
	return nil
}

func (a *address) remove(c *conn) {
	a.mu.Lock()
	a.conns = slices.DeleteFunc(a.conns, func(other *conn) bool { return other == c })
	a.mu.Unlock()
	a.changed()
}

// all gives the open connections.
func (a *address) all() []*conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.conns)
}

// evidence collects what is known.
func (a *address) evidence() Evidence {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := Evidence{Heard: a.lastHeard(), Failed: a.failed, RoundTrip: a.rtt}
	for _, c := range a.conns {
		e.Usable = e.Usable || c.usable() || (c.http2 == nil && a.http1Only && a.failed.IsZero())
	}
	return e
}

func (a *address) verdict() Verdict { return a.evidence().Verdict(a.clock.Now()) }

// lastHeard is when the latest byte came over a verified connection, zero if none has.
func (a *address) lastHeard() time.Time {
	if ns := a.heard.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

// measured takes a measured round trip.
func (a *address) measured(took time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rtt = smooth(a.rtt, took)
}

func (a *address) roundTrip() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rtt
}

func (a *address) keepalive() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.settings.KeepaliveInterval
}

// sessionsFor gives the TLS sessions to resume. They live as long as the roots by which they were
// verified. The lock is held.
func (a *address) sessionsFor(r *roots) tls.ClientSessionCache {
	if a.sessionsOf != r {
		a.sessions, a.sessionsOf = tls.NewLRUClientSessionCache(sessionCache), r
	}
	return a.sessions
}

// reloadTrust reads the CA file again. With other roots new requests use new connections.
func (a *address) reloadTrust() {
	changed, err := a.trust.reload()
	if err != nil {
		a.logger.Debug("cannot read the CA file; keeping the certificates loaded before", zap.Error(err))
	}
	if !changed {
		return
	}
	a.logger.Info("CA file loaded", zap.String("file", a.trust.file))
	for _, c := range a.all() {
		c.retire()
	}
	a.http1.CloseIdleConnections()
}

// retry tries an address again that is down, until the address is closed.
func (a *address) retry() {
	for failures := 0; ; {
		var timer clock.Timer
		var due <-chan time.Time
		down := a.verdict() == Down && a.wanted()
		if down {
			longest := min(firstRetry<<min(failures, 10), a.retryInterval())
			timer = a.clock.NewTimer(rand.N(longest)) //nolint:gosec // many sidecars come back at the same time
			due = timer.C()
		} else {
			failures = 0
		}
		try := false
		select {
		case <-due:
			try = true
		case atOnce := <-a.woken:
			try = down && (atOnce || a.rested())
		case <-a.look:
		case <-a.ctx.Done():
		}
		if timer != nil {
			timer.Stop()
		}
		if a.ctx.Err() != nil {
			return
		}
		if try {
			failures++
			a.mu.Lock()
			d := a.connect()
			a.mu.Unlock()
			<-d.done
		}
	}
}

// rested waits until another attempt may be woken. It reports false when the address is closed.
func (a *address) rested() bool {
	a.mu.Lock()
	left := wakeInterval - a.clock.Since(a.tried)
	a.mu.Unlock()
	if left <= 0 {
		return true
	}
	timer := a.clock.NewTimer(left)
	defer timer.Stop()
	for {
		select {
		case <-timer.C():
			return true
		case atOnce := <-a.woken:
			if atOnce {
				return true
			}
		case <-a.ctx.Done():
			return false
		}
	}
}

func (a *address) retryInterval() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.settings.RetryInterval
}

// answered notes whether the API server itself has answered a request, and not a gateway for want
// of one. It only counts where there are several addresses.
func (a *address) answered(itself bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !itself {
		a.ready = false
	}
}

// reach finds out, by a new connection, whether the address answers.
func (a *address) reach() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closeReason == nil {
		a.connect()
	}
}

// wake has the address tried again if it is down: at once, or as soon as requests may ask for it.
func (a *address) wake(atOnce bool) {
	select {
	case a.woken <- atOnce:
	default:
	}
}

// reconsider has the retries look at the evidence again.
func (a *address) reconsider() {
	select {
	case a.look <- struct{}{}:
	default:
	}
}

// Reasons to close an address.
var (
	errStopped = errors.New("the sidecar is shutting down")
	errRemoved = errors.New("upstream.servers was changed")
)

// close ends all requests and connections for a reason. Afterwards no new connections are made.
func (a *address) close(reason error) {
	a.mu.Lock()
	a.closeReason = reason
	a.mu.Unlock()
	for _, c := range a.all() {
		c.end(reason)
	}
	a.end()
	a.http1.CloseIdleConnections()
	a.goes.Wait()
}

// recordFailure keeps the error, and logs it if it is of another kind than the one before. The lock
// is held.
func (a *address) recordFailure(err error) {
	a.lastErr = err
	kind, advice := diagnose(err, a.trust.file)
	if kind == a.lastLogged {
		return
	}
	a.lastLogged = kind
	log := a.logger.Warn
	if a.server.LastResort { // it is only tried when the others have failed, which says it already
		log = a.logger.Info
	}
	log("API server does not answer", a.field(), zap.Error(err), zap.String("check", advice))
}

func (a *address) field() zap.Field { return zap.String("server", a.name) }

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
