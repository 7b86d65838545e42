package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"k8s.io/utils/clock"
)

// Connections to one address.
const (
	idleConnTimeout  = 90 * time.Second // below the usual limits of load balancers
	idleConnsPerHost = 16               // HTTP/1.1 only: HTTP/2 shares one connection
	sessionCache     = 4                // TLS sessions to resume, which saves bytes on a thin link
	// ackTimeout is for sent bytes that are not acknowledged. It is longer than the queue of a thin
	// link: 256 KiB at 64 kbit/s take 33 s.
	ackTimeout = 60 * time.Second
)

// address is one address of the API server: its connections and their evidence.
type address struct {
	server  Server
	name    string // the URL as configured
	trust   *trust
	logger  *zap.Logger
	meter   Meter
	clock   clock.WithTickerAndDelayedExecution
	dialer  net.Dialer
	resolve func(ctx context.Context, network, host string) ([]netip.Addr, error)
	// segments is segmentsOf, except in tests whose clock is not the kernel's.
	segments   func(net.Conn) segments
	changed    func()      // the evidence has
	wanted     func() bool // see plan
	isOnlyHope func() bool // see plan
	// wakeInterval is the shortest time between two attempts that requests wake.
	wakeInterval func() time.Duration
	overHTTP2    http.RoundTripper // over conns, see pool
	onConn       func(net.Conn) (*http2Conn, error)
	overHTTP1    *http.Transport
	short        shortPool
	ctx          context.Context // the life of the address
	end          context.CancelFunc
	goes         sync.WaitGroup
	heard        instant       // the latest byte over a verified connection
	look         chan struct{} // has a value when the retries should look at the evidence again
	woken        chan struct{} // has a value when an attempt is wanted soon
	hastened     atomic.Bool   // the next attempt is as soon as may be, so that nobody need wake for it
	used         atomic.Bool   // by a request, since it was last asked whether it is ready
	http1        atomic.Bool   // it chose HTTP/1.1 for the latest connection

	mu          sync.Mutex
	settings    Settings
	conns       []*conn
	dialing     *dialing  // nil: no connection is on its way
	tried       time.Time // when the latest dial began
	failures    int       // dials that have failed in succession
	failed      time.Time // see Evidence
	rtt         time.Duration
	sessions    tls.ClientSessionCache
	sessionsOf  *roots
	unready     int   // answers of /readyz in succession that contradict ready
	ready       bool  // by /readyz; only chooses among several addresses
	closeReason error // not nil once the address is closed for good
	lastErr     error // nil before the first failure and after a verified connection
	lastLogged  string
}

func newAddress(server Server, trust *trust, settings Settings, u *Upstream) (*address, error) {
	a := &address{
		server: server, name: server.URL.String(), trust: trust, settings: settings,
		logger: u.logger, meter: u.options.Meter, clock: u.clock, changed: u.refresh,
		resolve: net.DefaultResolver.LookupNetIP, segments: segmentsOf,
		dialer: net.Dialer{KeepAlive: -1, Control: userTimeout(ackTimeout)},
		look:   make(chan struct{}, 1), woken: make(chan struct{}, 1), ready: true,
	}
	a.wanted = func() bool { return u.plan.Load().wanted(a) }
	a.isOnlyHope = func() bool { return u.plan.Load().isOnlyHope(a) }
	a.wakeInterval = func() time.Duration {
		if u.patient.Load() > 0 {
			return patientInterval
		}
		return wakeInterval
	}
	if err := a.useHTTP2(); err != nil {
		return nil, err
	}
	a.overHTTP1 = &http.Transport{
		Proxy:               nil, // the environment's proxy is meant for the application
		DialTLSContext:      a.dialHTTP1,
		MaxIdleConnsPerHost: idleConnsPerHost, IdleConnTimeout: idleConnTimeout,
	}
	a.short.address = a
	a.ctx, a.end = context.WithCancel(context.Background())
	a.goes.Go(a.retry)
	return a, nil
}

// begin tells whether the address is open. If it is, goes.Done must be called.
func (a *address) begin() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closeReason == nil {
		a.goes.Add(1)
	}
	return a.closeReason == nil
}

// run runs f in a goroutine that ends before the address is closed. False: it is closed already.
func (a *address) run(f func()) bool {
	if !a.begin() {
		return false
	}
	go func() {
		defer a.goes.Done()
		f()
	}()
	return true
}

func (a *address) reasonToClose() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.closeReason
}

// add takes a verified connection into the list.
func (a *address) add(c *conn) error {
	a.mu.Lock()
	reason := a.closeReason
	if reason == nil && !c.removed {
		a.conns = append(a.conns, c)
	}
	a.mu.Unlock()
	if reason != nil {
		c.end(reason)
	}
	return reason
}

func (a *address) remove(c *conn) {
	a.mu.Lock()
	c.removed = true
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
	return Evidence{
		Usable: a.usable(), Open: slices.ContainsFunc(a.conns, (*conn).open),
		Heard: a.heard.time(), Failed: a.failed, RoundTrip: a.rtt,
	}
}

// usable tells whether a connection takes new requests. The lock is held.
func (a *address) usable() bool { return slices.ContainsFunc(a.conns, (*conn).usable) }

func (a *address) verdict() Verdict { return a.evidence().Verdict(a.clock.Now()) }

// measured takes the round trip of a PING. One that may have waited in a queue can only show that
// the link is faster than thought.
func (a *address) measured(took time.Duration, alone bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if alone || took < a.rtt {
		a.rtt = smooth(a.rtt, took)
	}
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
// verified.
func (a *address) sessionsFor(r *roots) tls.ClientSessionCache {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sessionsOf != r {
		a.sessions, a.sessionsOf = &sessions{ClientSessionCache: tls.NewLRUClientSessionCache(sessionCache)}, r
	}
	return a.sessions
}

// dropSessions is called when the peer has refused a handshake: it may have been the session.
func (a *address) dropSessions() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sessionsOf = nil
}

// sessions keeps a TLS session although a handshake with it fails: crypto/tls deletes it then, but
// mostly the link has failed. A session that fails again and again is deleted.
type sessions struct {
	tls.ClientSessionCache
	deletions atomic.Int32 // since the latest session came
}

// maxDeletions is how often a session may fail.
const maxDeletions = 20

// Put is called with a new session, or with nil to delete one.
func (s *sessions) Put(key string, session *tls.ClientSessionState) {
	if session != nil {
		s.deletions.Store(0)
	} else if s.deletions.Add(1) < maxDeletions {
		return
	}
	s.ClientSessionCache.Put(key, session)
}

// reloadTrust reads the CA file again. With other roots new requests use new connections. Requests
// in flight go on.
func (a *address) reloadTrust() {
	changed, err := a.trust.reload()
	if err != nil {
		a.logger.Debug("cannot read the CA file; keeping the certificates loaded before", zap.Error(err))
	}
	if changed {
		a.logger.Info("CA file loaded", zap.String("file", a.trust.file))
	}
	roots, _ := a.trust.current()
	for _, c := range a.all() {
		switch {
		case c.roots == roots:
		case c.http2 != nil:
			c.http2.SetDoNotReuse()
		case c.beside != nil:
			a.short.closeAllIdle()
		default:
			a.overHTTP1.CloseIdleConnections()
		}
	}
}

// notReady notes that a gateway has answered a request for want of an API server. That only counts
// where there are several addresses.
func (a *address) notReady() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ready = false
}

// reach finds out, by a new connection, whether the address answers.
func (a *address) reach() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closeReason == nil {
		a.connect()
	}
}

// check finds out whether the address answers: by a PING, and soon also by a new connection.
func (a *address) check() {
	e, began := a.evidence(), a.clock.Now()
	if !e.Usable {
		a.reach()
		return
	}
	for _, c := range a.all() {
		c.doubt()
	}
	a.clock.AfterFunc(patience(e.RoundTrip)/2, func() {
		if !a.heard.time().After(began) {
			a.reach()
		}
	})
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
	a.short.closeAllIdle()
	a.overHTTP1.CloseIdleConnections()
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

// uri returns the request target of a request at this address.
func (a *address) uri(u *url.URL) string {
	if a.server.URL.Path == "" || a.server.URL.Path == "/" {
		return u.RequestURI()
	}
	return a.target(u).RequestURI()
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
