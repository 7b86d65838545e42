package upstream

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"k8s.io/utils/clock"
)

// Defaults. With them a request into a black hole fails with a LinkError after at most three
// seconds, on a link with a round trip of up to 300 ms.
const (
	DefaultProbeInterval     = 10 * time.Second
	DefaultProbeTimeout      = 5 * time.Second
	DefaultConnectTimeout    = 2500 * time.Millisecond
	DefaultKeepaliveInterval = 30 * time.Second
	DefaultRetryInterval     = 30 * time.Second
	DefaultFailureThreshold  = 2
	DefaultSuccessThreshold  = 2
)

// Server is one address of the API server.
type Server struct {
	// URL has the scheme https, a host, and perhaps a port and the path of the API.
	URL *url.URL
	// TLSServerName is the name that the certificate must have and that the handshake sends. Empty
	// means the URL's host.
	TLSServerName string
	// CAFile has the PEM certificates of this server's CAs. It is read again when it changes, and
	// may be missing at first. Empty means Options.CAFile.
	CAFile string
	// LastResort marks an address that is only tried while all others are down, in any mode.
	LastResort bool
}

// Options say where the API server is and how it is reached.
type Options struct {
	Settings
	// CAFile has the PEM certificates of the cluster's CAs. It is read again when it changes, and
	// may be missing at first. Empty means the system's.
	CAFile string
	// TokenFile has the bearer token for /readyz. It is read each time, and may be missing. Empty
	// means no token.
	TokenFile string
	// IsStream tells that nobody expects the body of a response to have a byte at any time, as a
	// watch's. Nil: no response is a stream.
	IsStream func(*http.Request) bool
	// IsShort tells that the answer to a request is small, such as one object. Nil: none is.
	IsShort func(*http.Request) bool
	// OnChange, if not nil, is called for each change of the state with a reason, one call at a
	// time. It must return soon, and must not send requests through the Upstream or call
	// WaitOnline.
	OnChange func(State, string)
	// Logger logs each change of the state, and each new failure of an address once. Nil logs
	// nothing.
	Logger *zap.Logger
	// Meter measures what requests cost on the link. Nil means that nothing does.
	Meter Meter
	// Clock is the clock of all waits. Nil means the real one.
	Clock clock.WithTickerAndDelayedExecution
}

// Upstream sends requests to an address that answers. Call New, and let Run run while it is used.
type Upstream struct {
	options      Options // Settings are in plan
	logger       *zap.Logger
	clock        clock.WithTickerAndDelayedExecution
	plan         atomic.Pointer[plan]
	requestCount atomic.Uint64
	patient      atomic.Int32 // requests that wait for the link, see Patiently

	state   atomic.Int32 // copy of the state, for readers
	eventMu sync.Mutex   // held from a change to the end of its OnChange
	since   time.Time    // when the state was entered
	outage  time.Duration
	outages time.Duration // all that have ended
	left    time.Time     // when the link was online last; zero: never, or it is
	timer   clock.Timer   // of a verdict that changes by time alone

	mu     sync.Mutex
	online chan struct{} // closed while Online() is true

	updateMu sync.Mutex
	removed  []*address // may still have requests in flight
	stopped  bool
	updated  chan struct{} // tells Run of other settings
}

var _ http.RoundTripper = (*Upstream)(nil)

// New checks the options. It does not connect.
func New(options Options) (*Upstream, error) {
	if err := options.complete(); err != nil {
		return nil, err
	}
	if options.Logger == nil {
		options.Logger = zap.NewNop()
	}
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	if options.Meter == nil {
		options.Meter = unmetered{}
	}
	u := &Upstream{options: options, logger: options.Logger, clock: options.Clock, online: make(chan struct{})}
	close(u.online)
	u.updated = make(chan struct{}, 1)
	p, err := u.newPlan(options.Settings, nil)
	if err != nil {
		return nil, err
	}
	u.plan.Store(p)
	stateGauge.Set(gaugeValue[Suspect])
	return u, nil
}

// State returns the state of the link.
func (u *Upstream) State() State { return State(u.state.Load()) }

// Online reports whether requests should be tried: in Online and in Suspect.
func (u *Upstream) Online() bool { return u.State().online() }

// WaitOnline returns nil as soon as Online() is true, or the error of ctx.
func (u *Upstream) WaitOnline(ctx context.Context) error {
	u.mu.Lock()
	online := u.online
	u.mu.Unlock()
	select {
	case <-online:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Wake says that a program asks while the link is down. The addresses are tried at once, unless
// that was done less than two seconds ago, or a quarter of a second while a request waits patiently.
func (u *Upstream) Wake() {
	if u.Online() {
		return
	}
	for _, a := range u.plan.Load().addresses {
		a.wake()
	}
}

// Outage is how long the link was down before it came back last. Zero: it was never down.
func (u *Upstream) Outage() time.Duration {
	u.eventMu.Lock()
	defer u.eventMu.Unlock()
	return u.outage
}

// Offline is how long the link was down since the start, this outage included.
func (u *Upstream) Offline() time.Duration {
	u.eventMu.Lock()
	defer u.eventMu.Unlock()
	if u.State() == Offline {
		return u.outages + u.clock.Since(u.since)
	}
	return u.outages
}

// LastOnline is when the link was online last: now, if it is. Zero: it was not yet.
func (u *Upstream) LastOnline() time.Time {
	u.eventMu.Lock()
	defer u.eventMu.Unlock()
	if u.State() == Online {
		return u.clock.Now()
	}
	return u.left
}

// refresh judges the evidence and moves the state. No lock may be held.
func (u *Upstream) refresh() {
	p := u.plan.Load()
	if p == nil { // the first plan is being made
		return
	}
	u.eventMu.Lock()
	defer u.eventMu.Unlock()
	now := u.clock.Now()
	var verdicts []Verdict
	var again time.Time
	for _, a := range p.addresses {
		e := a.evidence()
		v := e.Verdict(now)
		if v == Down {
			for _, c := range a.all() {
				c.down()
			}
		}
		if at := e.changes(now); !at.IsZero() && (again.IsZero() || at.Before(again)) {
			again = at
		}
		verdicts = append(verdicts, v)
		a.reconsider()
	}
	if u.timer != nil {
		u.timer.Stop()
		u.timer = nil
	}
	if !again.IsZero() {
		u.timer = u.clock.AfterFunc(again.Sub(now), u.refresh)
	}
	u.enter(judge(verdicts), now)
}

// enter moves the state. eventMu is held.
func (u *Upstream) enter(after State, now time.Time) {
	before := u.State()
	if after == before {
		return
	}
	lasted := zap.Skip()
	if before == Offline {
		u.outage = now.Sub(u.since)
		u.outages += u.outage
		lasted = zap.Stringer("lasted", u.outage.Round(time.Millisecond))
	}
	switch Online {
	case before:
		u.left = now
	case after:
		u.left = time.Time{}
	}
	u.since = now
	u.state.Store(int32(after))
	u.mu.Lock()
	switch was, is := before.online(), after.online(); {
	case is && !was:
		close(u.online)
	case was && !is:
		u.online = make(chan struct{})
	}
	u.mu.Unlock()
	transitions.WithLabelValues(after.String()).Inc()
	stateGauge.Set(gaugeValue[after])
	reason := "an API server answers"
	if after != Online {
		reason = u.linkError().Error()
	}
	u.logger.Info("link state changed",
		zap.Stringer("from", before), zap.Stringer("to", after), zap.String("reason", reason), lasted)
	if u.options.OnChange != nil {
		u.options.OnChange(after, reason)
	}
}

// linkError returns the last error of each address.
func (u *Upstream) linkError() *LinkError {
	e := &LinkError{}
	for _, a := range u.plan.Load().addresses {
		e.Servers = append(e.Servers, a.serverError())
	}
	return e
}

// Run keeps what needs attention without requests until ctx ends: which of several addresses is
// ready, CA files, and the node's routes. Then it ends all requests in flight and returns nil. The
// Upstream cannot be used afterwards.
func (u *Upstream) Run(ctx context.Context) error {
	defer u.stop()
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { u.followRoutes(ctx) })
	for {
		timer := u.clock.NewTimer(u.plan.Load().ProbeInterval)
		select {
		case <-timer.C():
			u.lookAround(ctx)
		case <-u.updated: // the interval may be another one
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

// lookAround reads CA files again, and asks which of several addresses is ready.
func (u *Upstream) lookAround(ctx context.Context) {
	p := u.plan.Load()
	for _, a := range p.addresses {
		a.reloadTrust()
	}
	p.askReady(ctx, u)
}

func (u *Upstream) stop() {
	u.updateMu.Lock()
	defer u.updateMu.Unlock()
	u.stopped = true
	for _, a := range slices.Concat(u.plan.Load().addresses, u.removed) {
		a.close(errStopped)
	}
	u.eventMu.Lock()
	defer u.eventMu.Unlock()
	if u.timer != nil {
		u.timer.Stop()
	}
}
