package upstream

import (
	"context"
	"errors"
	"fmt"
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
	DefaultProbeInterval  = 2 * time.Second
	DefaultProbeTimeout   = time.Second
	DefaultConnectTimeout = 2 * time.Second
)

// Server is one address of the API server.
type Server struct {
	// URL has the scheme https, a host, and perhaps a port and a path under which the API lives.
	URL *url.URL
	// TLSServerName is the name that the certificate must have, and that is sent in the handshake. Empty means the URL's host.
	TLSServerName string
}

// Options say where the API server is and how it is watched. Servers is required.
type Options struct {
	// Servers are tried in this order.
	Servers []Server
	// CAFile has the PEM certificates of the cluster's CAs. It is read again when it changes, and may be missing at first.
	// Empty means the system's.
	CAFile string
	// TokenFile has the bearer token for probes. It is read for each, and may be missing. Empty means none.
	TokenFile string
	// ProbeInterval is the longest time from the start of one probe to the start of the next. Zero means DefaultProbeInterval.
	ProbeInterval time.Duration
	// ProbeTimeout is how long a probe may take. Zero means DefaultProbeTimeout.
	ProbeTimeout time.Duration
	// ConnectTimeout bounds the TCP connection, and again the TLS handshake. Zero means DefaultConnectTimeout.
	ConnectTimeout time.Duration
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
	options    Options
	logger     *zap.Logger
	clock      clock.WithTickerAndDelayedExecution
	candidates []*candidate
	trust      trust
	kicked     chan struct{} // a probe is wanted at once
	jitter     func() float64
	proven     atomic.Int64 // start of the latest round that succeeded, in nanoseconds

	state atomic.Int32 // copy of machine.state, for readers

	order   sync.Mutex // held from an event to the end of its OnChange
	machine machine

	mu     sync.Mutex
	online chan struct{} // closed while Online()
}

var _ http.RoundTripper = (*Upstream)(nil)

// New checks the options. It does not connect.
func New(options Options) (*Upstream, error) {
	if len(options.Servers) == 0 {
		return nil, errors.New("upstream: no servers: set upstream.servers, or run in a cluster")
	}
	for _, server := range options.Servers {
		if err := checkServer(server); err != nil {
			return nil, err
		}
	}
	for _, d := range []struct {
		value    *time.Duration
		standard time.Duration
	}{
		{&options.ProbeInterval, DefaultProbeInterval},
		{&options.ProbeTimeout, DefaultProbeTimeout},
		{&options.ConnectTimeout, DefaultConnectTimeout},
	} {
		if *d.value <= 0 {
			*d.value = d.standard
		}
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
		trust:   trust{file: options.CAFile},
		kicked:  make(chan struct{}, 1),
		jitter:  rand.Float64,
		online:  make(chan struct{}),
	}
	close(u.online)
	_, _ = u.trust.reload() // an error is reported when it is in the way, and the file may come later
	roots, _ := u.trust.roots()
	for _, server := range options.Servers {
		c := newCandidate(server, &u.options)
		c.renew(roots)
		u.candidates = append(u.candidates, c)
	}
	stateGauge.Set(gaugeValue[Suspect])
	return u, nil
}

func checkServer(server Server) error {
	u := server.URL
	switch {
	case u == nil:
		return errors.New("upstream: server without a URL")
	case u.Hostname() == "":
		return fmt.Errorf("upstream: server %q: no host", u.Redacted())
	case u.Scheme != "https":
		return fmt.Errorf("upstream: server %q: the scheme must be https", u.Redacted())
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("upstream: server %q: no user, query or fragment is possible", u.Redacted())
	}
	return nil
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
	for _, c := range u.candidates {
		e.Servers = append(e.Servers, c.why())
	}
	return e
}

func (u *Upstream) why() string { return u.linkError().Error() }
