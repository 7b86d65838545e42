package upstream

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"go.uber.org/zap"
)

// Mode says how one of several addresses is chosen.
type Mode int

const (
	// Priority takes the first healthy address.
	Priority Mode = iota
	// RoundRobin rotates over the healthy addresses, request by request. Requests in flight stay on
	// their address.
	RoundRobin
)

// drainTimeout is how long requests in flight may continue on an address that was removed.
const drainTimeout = 10 * time.Second

// Settings can change while an Upstream is used. Servers is required.
type Settings struct {
	// Servers are in order of preference.
	Servers []Server
	Mode    Mode
	// ProbeInterval is the longest time from the start of one probe to the start of the next. Zero
	// means DefaultProbeInterval.
	ProbeInterval time.Duration
	// ProbeTimeout is how long a probe may take. Zero means DefaultProbeTimeout.
	ProbeTimeout time.Duration
	// ConnectTimeout bounds the TCP connection, and again the TLS handshake. Zero means
	// DefaultConnectTimeout.
	ConnectTimeout time.Duration
	// FailureThreshold is how many probes of an address must fail in succession until it is down,
	// and how many rounds of probes until the link is. Zero means DefaultFailureThreshold.
	FailureThreshold int
	// SuccessThreshold is how many answers bring a link from Offline to Online. Zero means
	// DefaultSuccessThreshold.
	SuccessThreshold int
}

// complete checks the servers and fills in the defaults.
func (s *Settings) complete() error {
	if len(s.Servers) == 0 {
		return errors.New("upstream: no servers: set upstream.servers, or run in a cluster")
	}
	for _, server := range s.Servers {
		if err := checkServer(server); err != nil {
			return err
		}
	}
	orDefault(&s.ProbeInterval, DefaultProbeInterval)
	orDefault(&s.ProbeTimeout, DefaultProbeTimeout)
	orDefault(&s.ConnectTimeout, DefaultConnectTimeout)
	orDefault(&s.FailureThreshold, DefaultFailureThreshold)
	orDefault(&s.SuccessThreshold, DefaultSuccessThreshold)
	return nil
}

func orDefault[T time.Duration | int](value *T, standard T) {
	if *value <= 0 {
		*value = standard
	}
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
		return fmt.Errorf("upstream: server %q: must not have a user, query or fragment", u.Redacted())
	}
	return nil
}

// plan is settings and their addresses. It is immutable; Update replaces it.
type plan struct {
	Settings
	addresses []*address
	trusts    []*trust        // of the addresses, each once
	ctx       context.Context // ends when the plan is replaced
	end       context.CancelFunc
}

// newPlan makes the plan of the settings. An address that the plan before, if any, reached in the
// same way is kept, with its connections and its health.
func newPlan(s Settings, before *plan, o *Options) *plan {
	p := &plan{Settings: s}
	p.ctx, p.end = context.WithCancel(context.Background())
	var trusts []*trust
	var addresses []*address
	if before != nil {
		trusts, addresses = before.trusts, before.addresses
	}
	for _, server := range s.Servers {
		file := server.CAFile
		if file == "" {
			file = o.CAFile
		}
		i := slices.IndexFunc(addresses, func(a *address) bool { return a.matches(server, file, s.ConnectTimeout) })
		if i >= 0 {
			p.add(addresses[i])
			continue
		}
		p.add(newAddress(server, trustOf(slices.Concat(p.trusts, trusts), file), s.ConnectTimeout, o.Logger))
	}
	return p
}

func (p *plan) add(a *address) {
	p.addresses = append(p.addresses, a)
	if !slices.Contains(p.trusts, a.trust) {
		p.trusts = append(p.trusts, a.trust)
	}
}

// trustOf returns the trust of a file. It reads the file unless that was done already.
func trustOf(loaded []*trust, file string) *trust {
	if i := slices.IndexFunc(loaded, func(t *trust) bool { return t.file == file }); i >= 0 {
		return loaded[i]
	}
	t := &trust{file: file}
	_, _ = t.reload() // requests and probes report an error; the file may appear later
	return t
}

// matches reports whether newAddress would make an equal address from these arguments.
func (a *address) matches(server Server, caFile string, connectTimeout time.Duration) bool {
	return a.name == server.URL.String() && a.server.TLSServerName == server.TLSServerName &&
		a.server.LastResort == server.LastResort &&
		a.trust.file == caFile && a.dialer.Timeout == connectTimeout
}

// order returns the addresses to try: the healthy ones, then the degraded ones. An address that is
// down would only make the request wait; its probes find out when it is back. turn counts requests.
func (p *plan) order(turn uint64) []*address {
	// for each health the usual addresses, then those of last resort
	var groups [2 * down][]*address
	for _, a := range p.addresses {
		h := a.health(p.FailureThreshold)
		if h == down {
			continue
		}
		group := &groups[2*h]
		if a.server.LastResort {
			group = &groups[2*h+1]
		}
		*group = append(*group, a)
	}
	order := make([]*address, 0, len(p.addresses))
	for _, group := range groups {
		first := 0
		if p.Mode == RoundRobin && len(group) > 0 {
			first = int(turn % uint64(len(group)))
		}
		order = append(append(order, group[first:]...), group[:first]...)
	}
	return order
}

// Update replaces the settings without a pause. Addresses that stay keep their connections and
// their requests in flight. Requests on other addresses may continue for ten seconds; then they are
// interrupted as if the link had failed, so that watches move to another address. Update asks for a
// probe at once.
func (u *Upstream) Update(s Settings) error {
	if err := s.complete(); err != nil {
		return err
	}
	u.updateMu.Lock()
	defer u.updateMu.Unlock()
	if u.stopped {
		return errStopped
	}
	before := u.plan.Load()
	if reflect.DeepEqual(before.Settings, s) {
		return nil
	}
	after := newPlan(s, before, &u.options)
	u.eventMu.Lock()
	u.machine.failureThreshold, u.machine.successThreshold = s.FailureThreshold, s.SuccessThreshold
	u.eventMu.Unlock()
	u.plan.Store(after)
	before.end()
	for _, a := range before.addresses {
		if !slices.Contains(after.addresses, a) {
			u.logger.Info("API server removed or reconfigured", zap.String("server", a.name))
			u.removed = append(u.removed, a)
			u.clock.AfterFunc(drainTimeout, func() { u.closeRemoved(a) })
		}
	}
	u.probeNow()
	return nil
}

// closeRemoved ends the requests in flight on an address that was removed.
func (u *Upstream) closeRemoved(a *address) {
	a.close(errRemoved)
	u.updateMu.Lock()
	defer u.updateMu.Unlock()
	u.removed = slices.DeleteFunc(u.removed, func(other *address) bool { return other == a })
}
