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

// Defaults. With them a request into a black hole is told that the link is down after 2.5 seconds, and a link over
// which nothing is asked is found to be a black hole after 4 seconds at most.
const (
	DefaultProbeInterval    = 2 * time.Second
	DefaultProbeTimeout     = time.Second
	DefaultConnectTimeout   = 2 * time.Second
	DefaultFailureThreshold = 2
	DefaultSuccessThreshold = 2
)

// Server is one address of the API server.
type Server struct {
	// URL has the scheme https, a host, and perhaps a port and a path under which the API lives.
	URL *url.URL
	// TLSServerName is the name that the certificate must have, and that is sent in the handshake. Empty means the URL's host.
	TLSServerName string
	// CAFile has the PEM certificates of the CAs of this server. It is read again when it changes, and may be missing at
	// first. Empty means Options.CAFile.
	CAFile string
	// LastResort marks an address that is used only while no other is as well, whatever the mode.
	LastResort bool
}

// Options say where the API server is and how it is watched.
type Options struct {
	Settings
	// CAFile has the PEM certificates of the cluster's CAs. It is read again when it changes, and may be missing at first.
	// Empty means the system's.
	CAFile string
	// TokenFile has the bearer token for probes. It is read for each, and may be missing. Empty means none.
	TokenFile string
	// OnChange, if not nil, is told each change of the state, one after the other. It must return soon, and must
	// not send requests through the Upstream or call WaitOnline.
	OnChange func(State, string)
	// Logger gets changes of the state and what is wrong with an address, each once. Nil means none.
	Logger *zap.Logger
	// Clock is for probes. Nil means the real one.
	Clock clock.WithTickerAndDelayedExecution
}

// Upstream sends requests to whichever address answers. Use New, and Run for as long as it is used.
type Upstream struct {
	options Options // Settings are in plan
	logger  *zap.Logger
	clock   clock.WithTickerAndDelayedExecution
	plan    atomic.Pointer[plan]
	turns   atomic.Uint64 // requests
	kicked  chan struct{} // a probe is wanted at once
	jitter  func() float64
	proven  atomic.Int64   // start of the latest round that was answered, in nanoseconds
	probes  sync.WaitGroup // on their way

	state atomic.Int32 // copy of machine.state, for readers

	order   sync.Mutex // held from an event to the end of its OnChange
	machine machine

	mu     sync.Mutex
	online chan struct{} // closed while Online()

	updating sync.Mutex
	removed  []*candidate // that something may still be under way on
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
		options: options,
		logger:  options.Logger,
		clock:   options.Clock,
		kicked:  make(chan struct{}, 1),
		jitter:  rand.Float64,
		machine: machine{failureThreshold: options.FailureThreshold, successThreshold: options.SuccessThreshold},
		online:  make(chan struct{}),
	}
	close(u.online)
	u.plan.Store(newPlan(options.Settings, nil, &u.options))
	stateGauge.Set(gaugeValue[Suspect])
	return u, nil
}

// State returns the state of the link.
func (u *Upstream) State() State { return State(u.state.Load()) }

// Online reports whether requests should be tried: not in Offline, nor in Recovering.
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

// event moves the state. reason is for people.
func (u *Upstream) event(e event, reason func() string) {
	if e == requestSucceeded && u.State() == Online {
		return // the common case, without a lock
	}
	u.order.Lock()
	defer u.order.Unlock()
	before := u.machine.state
	after, probe := u.machine.next(e)
	u.machine = after
	if probe {
		u.kick()
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
	u.logger.Info("link state changed", zap.Stringer("from", before), zap.Stringer("to", after.state), zap.String("reason", why))
	if u.options.OnChange != nil {
		u.options.OnChange(after.state, why)
	}
}

// kick asks for a probe at once.
func (u *Upstream) kick() {
	select {
	case u.kicked <- struct{}{}:
	default: // one is asked for already
	}
}

// linkError collects what is known of all addresses.
func (u *Upstream) linkError() *LinkError {
	e := &LinkError{}
	for _, c := range u.plan.Load().candidates {
		e.Servers = append(e.Servers, c.why())
	}
	return e
}

func (u *Upstream) why() string { return u.linkError().Error() }
