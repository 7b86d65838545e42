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

// Mode is how one of several addresses is chosen.
type Mode int

const (
	// Priority: the first that is well.
	Priority Mode = iota
	// RoundRobin: those that are well in turn, request by request. What is under way stays where it is.
	RoundRobin
)

// retireAfter is how long what is under way on an address may go on once the address was removed.
const retireAfter = 10 * time.Second

// Settings are what can change while an Upstream is used. Servers is required.
type Settings struct {
	// Servers are in order of preference.
	Servers []Server
	Mode    Mode
	// ProbeInterval is the longest time from the start of one probe to the start of the next. Zero means DefaultProbeInterval.
	ProbeInterval time.Duration
	// ProbeTimeout is how long a probe may take. Zero means DefaultProbeTimeout.
	ProbeTimeout time.Duration
	// ConnectTimeout bounds the TCP connection, and again the TLS handshake. Zero means DefaultConnectTimeout.
	ConnectTimeout time.Duration
	// FailureThreshold is how many probes of an address in succession have to fail before it is down, and how many rounds of
	// probes before the link is. Zero means DefaultFailureThreshold.
	FailureThreshold int
	// SuccessThreshold is how many answers bring back a link that was down. Zero means DefaultSuccessThreshold.
	SuccessThreshold int
}

// complete checks the servers and puts in the defaults.
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
		return fmt.Errorf("upstream: server %q: no user, query or fragment is possible", u.Redacted())
	}
	return nil
}

// plan is settings and the addresses that they make. It does not change; another replaces it.
type plan struct {
	Settings
	candidates []*candidate
	trusts     []*trust        // of the candidates, each once
	ctx        context.Context // ends when the plan is replaced
	end        context.CancelFunc
}

// newPlan keeps the candidates of the plan before, if there is one, whose address is to be reached as before: their connections, and
// what is known of them.
func newPlan(s Settings, before *plan, o *Options) *plan {
	p := &plan{Settings: s}
	p.ctx, p.end = context.WithCancel(context.Background())
	var trusts []*trust
	var candidates []*candidate
	if before != nil {
		trusts, candidates = before.trusts, before.candidates
	}
	for _, server := range s.Servers {
		file := server.CAFile
		if file == "" {
			file = o.CAFile
		}
		i := slices.IndexFunc(candidates, func(c *candidate) bool { return c.reaches(server, file, s.ConnectTimeout) })
		if i >= 0 {
			p.add(candidates[i])
			continue
		}
		p.add(newCandidate(server, trustOf(slices.Concat(p.trusts, trusts), file), s.ConnectTimeout, o.Logger))
	}
	return p
}

func (p *plan) add(c *candidate) {
	p.candidates = append(p.candidates, c)
	if !slices.Contains(p.trusts, c.trust) {
		p.trusts = append(p.trusts, c.trust)
	}
}

// trustOf gives the trust in a file, which is read if that was not done yet.
func trustOf(known []*trust, file string) *trust {
	if i := slices.IndexFunc(known, func(t *trust) bool { return t.file == file }); i >= 0 {
		return known[i]
	}
	t := &trust{file: file}
	_, _ = t.reload() // an error is reported when it is in the way, and the file may come later
	return t
}

// reaches tells whether the candidate is what would be made of these.
func (c *candidate) reaches(server Server, caFile string, connectTimeout time.Duration) bool {
	return c.name == server.URL.String() && c.server.TLSServerName == server.TLSServerName && c.server.LastResort == server.LastResort &&
		c.trust.file == caFile && c.dialer.Timeout == connectTimeout
}

// order returns the addresses to try: those that are well, then those in trouble. Those that are down would only make the
// request wait, and their probes will tell when they are back. turn counts requests.
func (p *plan) order(turn uint64) []*candidate {
	var groups [2 * down][]*candidate // of each health, the usual ones and those of last resort
	for _, c := range p.candidates {
		h := c.health(p.FailureThreshold)
		if h == down {
			continue
		}
		group := &groups[2*h]
		if c.server.LastResort {
			group = &groups[2*h+1]
		}
		*group = append(*group, c)
	}
	order := make([]*candidate, 0, len(p.candidates))
	for _, group := range groups {
		first := 0
		if p.Mode == RoundRobin && len(group) > 0 {
			first = int(turn % uint64(len(group)))
		}
		order = append(append(order, group[first:]...), group[:first]...)
	}
	return order
}

// Update makes other settings hold, without a pause: addresses that stay keep their connections and what is under way on them. What
// is under way on others may go on for ten seconds, and is then cut as if the link had broken, so that watches move on. Whether
// the link is up is looked into at once.
func (u *Upstream) Update(s Settings) error {
	if err := s.complete(); err != nil {
		return err
	}
	u.updating.Lock()
	defer u.updating.Unlock()
	if u.stopped {
		return errStopped
	}
	before := u.plan.Load()
	if reflect.DeepEqual(before.Settings, s) {
		return nil
	}
	after := newPlan(s, before, &u.options)
	u.order.Lock()
	u.machine.failureThreshold, u.machine.successThreshold = s.FailureThreshold, s.SuccessThreshold
	u.order.Unlock()
	u.plan.Store(after)
	before.end()
	for _, c := range before.candidates {
		if !slices.Contains(after.candidates, c) {
			u.logger.Info("API server is not used any more in this way", zap.String("server", c.name))
			u.removed = append(u.removed, c)
			u.clock.AfterFunc(retireAfter, func() { u.retire(c) })
		}
	}
	u.kick()
	return nil
}

// retire ends what is under way on an address that was removed.
func (u *Upstream) retire(c *candidate) {
	c.retire(errRemoved)
	u.updating.Lock()
	defer u.updating.Unlock()
	u.removed = slices.DeleteFunc(u.removed, func(other *candidate) bool { return other == c })
}
