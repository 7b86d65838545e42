package live

import (
	"context"
	"slices"

	"rockpool.dev/store"
)

// SetServers has lists and proofs measured anew, unless these are the servers that they come from
// anyway: the way to others is another one.
func (s *Collections) SetServers(servers []string) {
	if before := s.pace.Load(); before != nil && slices.Equal(before.servers, servers) {
		return
	}
	p := newPace(s.Rate)
	p.servers = slices.Clone(servers)
	if s.Rates != nil {
		p.keep = func(rate float64) {
			s.Rates.PutRate(store.Rate{Servers: p.servers, BytesPerSecond: int64(rate)})
		}
	}
	s.pace.Store(p)
}

// Expect has a start begin with the rate that an earlier process has measured with these servers, if
// there is one.
func (s *Collections) Expect(ctx context.Context) error {
	p := s.pace.Load()
	if !s.Save || s.Rates == nil {
		return nil
	}
	rate, err := s.Rates.Rate(ctx, p.servers)
	if err == nil && rate > 0 {
		p.expect(float64(rate))
	}
	return err
}
