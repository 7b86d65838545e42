package upstream

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"k8s.io/utils/clock"
)

// Defaults. With them a request into a black hole fails with a LinkError after 2.5 seconds, and a
// black hole on a link without requests is detected after 4 seconds at most.
const (
	DefaultProbeInterval    = 2 * time.Second
	DefaultProbeTimeout     = time.Second
	DefaultConnectTimeout   = 2 * time.Second
	DefaultFailureThreshold = 2
	DefaultSuccessThreshold = 2
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
	// LastResort marks an address that is used only while no other one has the same health, in any
	// mode.
	LastResort bool
}

// Options say where the API server is and how it is probed.
type Options struct {
	Settings
	// CAFile has the PEM certificates of the cluster's CAs. It is read again when it changes, and
	// may be missing at first. Empty means the system's.
	CAFile string
	// TokenFile has the bearer token for probes. It is read for each probe, and may be missing.
	// Empty means no token.
	TokenFile string
	// OnChange, if not nil, is called for each change of the state with a reason, one call at a
	// time. It must return soon, and must not send requests through the Upstream or call
	// WaitOnline.
	OnChange func(State, string)
	// Logger logs each change of the state, and each new failure of an address once. Nil logs
	// nothing.
	Logger *zap.Logger
	// Clock is the clock of the probes. Nil means the real one.
	Clock clock.WithTickerAndDelayedExecution
}

// Upstream sends requests to an address that answers. Call New, and let Run run while it is used.
type Upstream struct {
	options      Options // Settings are in plan
	logger       *zap.Logger
	clock        clock.WithTickerAndDelayedExecution
	plan         atomic.Pointer[plan]
	requestCount atomic.Uint64
	probeWanted  chan struct{} // holds a value while a probe is wanted at once
	jitter       func() float64
	lastAnswered atomic.Int64   // start of the latest answered round, in nanoseconds
	probes       sync.WaitGroup // in flight

	state atomic.Int32 // copy of machine.state, for readers

	eventMu sync.Mutex // held from an event to the end of its OnChange
	machine machine

	mu     sync.Mutex
	online chan struct{} // closed while Online() is true

	updateMu sync.Mutex
	removed  []*address // may still have requests in flight
	stopped  bool
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
	u := &Upstream{
		options:     options,
		logger:      options.Logger,
		clock:       options.Clock,
		probeWanted: make(chan struct{}, 1),
		jitter:      rand.Float64,
		machine:     machine{failureThreshold: options.FailureThreshold, successThreshold: options.SuccessThreshold},
		online:      make(chan struct{}),
	}
	close(u.online)
	u.plan.Store(newPlan(options.Settings, nil, &u.options))
	stateGauge.Set(gaugeValue[Suspect])
	return u, nil
}

// State returns the state of the link.
func (u *Upstream) State() State { return State(u.state.Load()) }

// Online reports whether requests should be tried: in Online and in Suspect.
func (u *Upstream) Online() bool { return u.State().online() }

func (s State) online() bool { return s == Online || s == Suspect }

// WaitOnline returns nil as soon as Online() is true, or the error of ctx.
func (u *Upstream) WaitOnline(ctx context.Context) error {
	for {
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
}

// event moves the state. reason is for the log and OnChange.
func (u *Upstream) event(e event, reason func() string) {
	if e == requestSucceeded && u.State() == Online {
		return // the common case, without a lock
	}
	u.eventMu.Lock()
	defer u.eventMu.Unlock()
	before := u.machine.state
	after, probe := u.machine.next(e)
	u.machine = after
	if probe {
		u.probeNow()
	}
	if after.state == before {
		return
	}
	u.state.Store(int32(after.state))
	u.mu.Lock()
	switch was, is := before.online(), after.state.online(); {
	case is && !was:
		close(u.online)
	case was && !is:
		u.online = make(chan struct{})
	}
	u.mu.Unlock()

	transitions.WithLabelValues(after.state.String()).Inc()
	stateGauge.Set(gaugeValue[after.state])
	why := reason()
	u.logger.Info("link state changed",
		zap.Stringer("from", before), zap.Stringer("to", after.state), zap.String("reason", why))
	if u.options.OnChange != nil {
		u.options.OnChange(after.state, why)
	}
}

// probeNow asks for a probe at once.
func (u *Upstream) probeNow() {
	select {
	case u.probeWanted <- struct{}{}:
	default: // a probe is wanted already
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

func (u *Upstream) linkErrorText() string { return u.linkError().Error() }
