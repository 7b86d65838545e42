package upstream

import (
	"cmp"
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
	// ConnectTimeout is how long TCP, and again TLS, may take without an answer, before the round
	// trip was measured. Zero means DefaultConnectTimeout.
	ConnectTimeout time.Duration
	// KeepaliveInterval is the silence on a connection with open streams after which a PING is
	// sent. Zero means DefaultKeepaliveInterval.
	KeepaliveInterval time.Duration
	// RetryInterval is the longest time until an address that is down is tried again when nobody
	// asks. Zero means DefaultRetryInterval.
	RetryInterval time.Duration
	// ProbeInterval is how often /readyz is asked of the addresses in use, when there are several,
	// and how often CA files are read again. Zero means DefaultProbeInterval.
	ProbeInterval time.Duration
	// ProbeTimeout is how long /readyz may take. Zero means DefaultProbeTimeout.
	ProbeTimeout time.Duration
	// FailureThreshold is how many answers of /readyz must fail in succession until another address
	// is preferred. Zero means DefaultFailureThreshold.
	FailureThreshold int
	// SuccessThreshold is how many must succeed until the address is preferred again. Zero means
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
	orDefault(&s.KeepaliveInterval, DefaultKeepaliveInterval)
	orDefault(&s.RetryInterval, DefaultRetryInterval)
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
}

// newPlan makes the plan of the settings. An address that the plan before, if any, reached in the
// same way is kept, with its connections and its evidence.
func (u *Upstream) newPlan(s Settings, before *plan) (*plan, error) {
	p := &plan{Settings: s}
	var known []*address
	if before != nil {
		known = before.addresses
	}
	for _, server := range s.Servers {
		file := cmp.Or(server.CAFile, u.options.CAFile)
		if i := slices.IndexFunc(known, func(a *address) bool { return a.matches(server, file) }); i >= 0 {
			known[i].configure(s)
			p.addresses = append(p.addresses, known[i])
			continue
		}
		a, err := newAddress(server, trustOf(slices.Concat(p.addresses, known), file), s, u)
		if err != nil {
			return nil, err
		}
		p.addresses = append(p.addresses, a)
	}
	return p, nil
}

// trustOf returns the trust of a file, which the addresses with the same file share.
func trustOf(known []*address, file string) *trust {
	if i := slices.IndexFunc(known, func(a *address) bool { return a.trust.file == file }); i >= 0 {
		return known[i].trust
	}
	t := &trust{file: file}
	_, _ = t.reload() // requests report an error; the file may appear later
	return t
}

// matches reports whether newAddress would make an equal address from these arguments.
func (a *address) matches(server Server, caFile string) bool {
	return a.name == server.URL.String() && a.server.TLSServerName == server.TLSServerName &&
		a.server.LastResort == server.LastResort && a.trust.file == caFile
}

func (a *address) configure(s Settings) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settings = s
}

// next returns the address to try next for a request, nil if there is none left. turn counts
// requests, tried the attempts of this one. Ready addresses come first. The last resort comes when
// all others are down, or have failed this request.
func (p *plan) next(turn uint64, tried map[*address]int) *address {
	if p.Mode != RoundRobin && tried == nil && len(p.addresses) > 0 { // nearly always the first one is good
		if first := p.addresses[0]; !first.server.LastResort && first.verdict() != Down && first.isReady() {
			return first
		}
	}
	ready, unready, last := p.left(tried)
	for _, group := range [][]*address{ready, unready, last} {
		if len(group) == 0 {
			continue
		}
		if p.Mode == RoundRobin {
			return group[turn%uint64(len(group))]
		}
		return group[0]
	}
	return nil
}

// left gives the addresses that are left for a request.
func (p *plan) left(tried map[*address]int) (ready, unready, last []*address) {
	for _, a := range p.addresses {
		switch {
		case tried[a] >= attemptsEach || a.verdict() == Down:
		case a.server.LastResort:
			last = append(last, a)
		case a.isReady():
			ready = append(ready, a)
		default:
			unready = append(unready, a)
		}
	}
	return ready, unready, last
}

// isOnlyHope tells whether an address of last resort is the only one that is not down. If it was
// never tried, nobody knows whether the link is up.
func (p *plan) isOnlyHope(a *address) bool {
	return p != nil && a.server.LastResort && len(p.addresses) > 1 && p.wanted(a)
}

// wanted tells whether an address that is down should be tried again: one of last resort only while
// all others are down.
func (p *plan) wanted(a *address) bool {
	if p == nil || !a.server.LastResort {
		return true
	}
	return !slices.ContainsFunc(p.addresses, func(other *address) bool {
		return !other.server.LastResort && other.verdict() != Down
	})
}

// Update replaces the settings without a pause. Addresses that stay keep their connections and
// their requests in flight. Requests on other addresses may continue for ten seconds; then they are
// interrupted as if the link had failed, so that watches move to another address.
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
	after, err := u.newPlan(s, before)
	if err != nil {
		return err
	}
	u.plan.Store(after)
	for _, a := range before.addresses {
		if !slices.Contains(after.addresses, a) {
			u.logger.Info("API server removed or reconfigured", zap.String("server", a.name))
			u.removed = append(u.removed, a)
			u.clock.AfterFunc(drainTimeout, func() { u.closeRemoved(a) })
		}
	}
	select {
	case u.updated <- struct{}{}:
	default:
	}
	u.refresh()
	return nil
}

// closeRemoved ends the requests in flight on an address that was removed.
func (u *Upstream) closeRemoved(a *address) {
	a.close(errRemoved)
	u.updateMu.Lock()
	defer u.updateMu.Unlock()
	u.removed = slices.DeleteFunc(u.removed, func(other *address) bool { return other == a })
}
