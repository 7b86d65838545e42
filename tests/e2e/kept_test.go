package e2e

import (
	"strings"
	"testing"

	"rockpool.dev/tests/bed/link"
)

// A sidecar that starts on a fast link does not have a large list wait for a proof. One whose link has
// become thin meanwhile finds that out with its first list.
func TestASidecarStartsWithTheRateThatWasMeasured(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const count = 600 // of 1 MB together, 8 s on the link that is expected where nothing was measured
	s.many(0, count)
	p := s.pod(withoutApp)
	p.linkIs("online")
	list := func(what string, saved bool) {
		t.Helper()
		s.many(0, 1) // a bookmark would be waited for
		r := p.ask(get(s.configMaps()))[0]
		p.isPresent(r)
		t.Logf("%s: %.2f s", what, r.Seconds)
		if hit := r.Headers["Cache-Status"] != ""; hit != saved {
			t.Errorf("%s: from the cache %v, want %v: %v", what, hit, saved, r.Headers)
		}
	}
	const rate = `SELECT CAST(value AS TEXT)->>'bytes_per_second' > 1000000 FROM fact WHERE key = 'link-rate'`
	list("nothing is recorded", false)
	s.until("the list is recorded", func() bool { return strings.TrimSpace(s.sql(rate)) == "1" })
	p.kill()
	p.linkIs("online")
	list("on a fast link, after a kill", false)

	shape := link.Shape{Rate: 1_000_000 / 8, Queue: 64 << 10, RoundTrip: 100_000_000}
	s.Link.SetShape(shape, shape)
	p.kill()
	p.linkIs("online")
	list("on a link that was fast and is thin", false)
	list("on a thin link", true)
	s.until("the rate is recorded", func() bool { return strings.TrimSpace(s.sql(rate)) == "0" })
	p.kill()
	p.linkIs("online")
	list("on a thin link, after a kill", true)
}
