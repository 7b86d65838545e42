package upstream

import "time"

// AddressState is what is known of an address, for people.
type AddressState struct {
	URL     string
	Verdict Verdict
	// Ready is what /readyz said last; it only chooses among several addresses.
	Ready bool
	// LastResort is the in-cluster address, which is tried when all others are down.
	LastResort bool
	// Heard is when the latest byte came. Zero: never.
	Heard time.Time
	// RoundTrip is the smoothed time of a round trip. Zero: not measured.
	RoundTrip time.Duration
	// Error is the last one since a verified connection; empty: none.
	Error string
}

// Addresses returns what is known of each address, in the order of the settings.
func (u *Upstream) Addresses() []AddressState {
	var all []AddressState
	for _, a := range u.plan.Load().addresses {
		e := a.evidence()
		state := AddressState{
			URL: a.server.URL.Redacted(), Verdict: e.Verdict(u.clock.Now()), Ready: a.isReady(), LastResort: a.server.LastResort, Heard: e.Heard, RoundTrip: e.RoundTrip,
		}
		a.mu.Lock()
		if a.lastErr != nil {
			state.Error = a.lastErr.Error()
		}
		a.mu.Unlock()
		all = append(all, state)
	}
	return all
}

// String returns the verdict as people read it.
func (v Verdict) String() string {
	switch v {
	case Up:
		return "up"
	case Down:
		return "down"
	}
	return "unknown"
}
