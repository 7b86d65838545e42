package live

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/store"
)

// keeping has the rate kept in the harness's cache.
func (h *harness) keeping(servers ...string) *Collections {
	o := h.Options
	o.Rates, o.Servers, o.Rate = h.cache, servers, 0
	return New(o)
}

// reads has a list of so many bytes measured and recorded, as it is read to its end within a time.
func (h *harness) reads(s *Collections, bytes int, took time.Duration) {
	h.t.Helper()
	read := h.get("")
	text := `{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"20"},"items":[{"metadata":{"name":"a","namespace":"shop","uid":"a","resourceVersion":"15"},"data":{"text":"` + strings.Repeat("x", bytes) + `"}}]}`
	resp := answered(200, s.Timed(&slowly{Reader: strings.NewReader(text), step: func() { h.clock.Step(took) }}))
	h.cache.Record(&record.Source{Principal: "web", Info: read.Info, Path: path, Started: h.clock.Now(), Asked: h.cache.Ask()}, resp)
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		h.t.Fatal(err)
	}
	if err := h.cache.Flush(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

// slowly has a step before its second part.
type slowly struct {
	io.Reader
	step func()
	part int
}

func (s *slowly) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if s.part++; s.part == 2 {
		s.step()
	}
	return n, err
}

func (s *slowly) Close() error { return nil }

// expects is how long a list of 6 MB is expected to take; 0: nothing is known.
func (h *harness) expects(s *Collections) time.Duration {
	h.t.Helper()
	if err := s.Expect(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	took, _ := s.pace.Load().list(6_000_000)
	return took
}

// A process that is killed once its first large list is recorded leaves the rate.
func TestTheNextStartExpectsWhatWasMeasured(t *testing.T) {
	h := newHarness(t)
	if took := h.expects(h.keeping("https://a:6443")); took != 0 {
		t.Errorf("nothing is known: %v", took)
	}
	h.reads(h.keeping("https://a:6443"), 3_000_000, 100*time.Millisecond)
	next := h.keeping("https://a:6443")
	if took := h.expects(next); took > firstProof/2 {
		t.Errorf("the next start expects %v", took)
	}
	next.pace.Load().listed(100_000, time.Second, nil)
	if took := h.expects(next); took != time.Minute {
		t.Errorf("the first list does not count alone: %v", took)
	}
	if took := h.expects(h.keeping("https://b:6443", "https://a:6443")); took != 0 {
		t.Errorf("to other servers it expects %v", took)
	}
}

// With other servers all is measured anew. What comes of the former ones still does not count.
func TestOtherServersAreAnotherLink(t *testing.T) {
	h := newHarness(t)
	s := h.keeping("https://a:6443")
	under := s.Timed(&slowly{Reader: strings.NewReader(strings.Repeat("x", 1_000_000)), step: func() { h.clock.Step(time.Second) }})
	s.pace.Load().listed(30_000_000, time.Second, nil)
	s.SetServers([]string{"https://a:6443"})
	if took, _ := s.pace.Load().list(30_000_000); took != time.Second {
		t.Errorf("with the same servers: %v", took)
	}
	s.SetServers([]string{"https://b:6443"})
	if _, err := io.Copy(io.Discard, under); err != nil {
		t.Fatal(err)
	}
	if took, ok := s.pace.Load().list(1); ok {
		t.Errorf("with other servers: %v", took)
	}
}

// Without a cache, and before it is open, nothing is expected, and nothing fails.
func TestARateNeedsNoCache(t *testing.T) {
	h := newHarness(t)
	for name, rates := range map[string]*cache.Cache{"none": nil, "closed": {}} {
		o := h.Options
		o.Rates, o.Servers, o.Rate = rates, []string{"https://a:6443"}, 0
		s := New(o)
		s.pace.Load().listed(30_000_000, time.Second, nil)
		if err := s.Expect(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if took, _ := s.pace.Load().list(30_000_000); took != time.Second {
			t.Errorf("%s: %v", name, took)
		}
	}
}

// Whatever stands in the file, a list is expected to take some time.
func TestNonsenseInTheCacheIsNotExpected(t *testing.T) {
	h := newHarness(t)
	for _, value := range []string{"NaN", "fast", `{"servers":["https://a:6443"],"bytes_per_second":-1}`, `{"servers":["https://a:6443"],"bytes_per_second":1e300}`} {
		if err := h.cache.PutFact(t.Context(), "link-rate", []byte(value)); err != nil {
			t.Fatal(err)
		}
		if took := h.expects(h.keeping("https://a:6443")); took != 0 {
			t.Errorf("%s: %v", value, took)
		}
	}
	h.cache.PutRate(store.Rate{Servers: []string{"https://a:6443"}, BytesPerSecond: 6_000_000})
	h.reads(h.Collections, 10, 0) // a group
	if took := h.expects(h.keeping("https://a:6443")); took != time.Second {
		t.Errorf("after the next group: %v", took)
	}
}

func TestARateThatCannotBeReadIsAnError(t *testing.T) {
	h := newHarness(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.keeping("https://a:6443").Expect(ctx); err == nil {
		t.Error("no error")
	}
}
