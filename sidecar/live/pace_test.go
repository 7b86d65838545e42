package live

import (
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/tests/eventually"
)

// A consistent list of 2,000 pods, 6 MB, is proven on a thin link, and passes on a fast one.
func TestWhichListsAreProvenByWhatTheLinkHasCarried(t *testing.T) {
	const thin, fast, unknown = 100_000, 30_000_000, 0
	type list struct {
		size int64
		took time.Duration
	}
	at := func(rate int64) list { return list{rate, time.Second} }
	for name, c := range map[string]struct {
		kept    float64 // by an earlier process
		lists   []list
		verdict Verdict
	}{
		"nothing is known: the list is to show it":                     {unknown, nil, Pass},
		"a link was fast, and nothing says otherwise":                  {fast, nil, Pass},
		"a link was thin, and nothing says otherwise":                  {thin, nil, Proven},
		"nothing was known, and the link is fast":                      {unknown, []list{at(fast)}, Pass},
		"nothing was known, and the link is thin":                      {unknown, []list{at(thin)}, Proven},
		"a link was fast and is thin":                                  {fast, []list{at(thin)}, Proven},
		"a link was thin and is fast":                                  {thin, []list{at(fast)}, Pass},
		"a link was very fast and is thin: what was does not count":    {1000 * fast, []list{at(thin)}, Proven},
		"a link was very thin and is fast: what was does not count":    {thin / 1000, []list{at(fast)}, Pass},
		"a link has become thin meanwhile":                             {unknown, []list{at(fast), at(thin)}, Proven},
		"a link has become fast meanwhile":                             {unknown, []list{at(thin), at(thin), at(fast), at(fast)}, Pass},
		"a link is fast again":                                         {unknown, []list{at(fast), at(thin), at(fast)}, Pass},
		"a list that took no time is of a fast link":                   {thin, []list{{enough, 0}}, Pass},
		"of a link that was fast, a part of the first list is thin":    {fast, []list{{enough, time.Second}}, Proven},
		"a link was fast, is thin, and the same again after that list": {fast, []list{at(thin), at(thin)}, Proven},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPace(0)
			if c.kept != unknown {
				p.expect(c.kept)
			}
			for _, l := range c.lists {
				p.listed(l.size, l.took, nil)
			}
			info := request.Parse(httptest.NewRequest(http.MethodGet, path, nil))
			list, measured := p.list(6_000_000)
			f := Facts{Save: true, Info: &info, Principal: "web", Recorded: true, Version: "100", List: list, Unmeasured: !measured, Proof: p.proofTime()}
			if v, _ := Decide(f); v != c.verdict {
				t.Errorf("%s, with a list of %v and a proof of %v", v, f.List, f.Proof)
			}
		})
	}
}

// What an earlier process has measured does not replace what this one has.
func TestAMeasuredRateIsNotExpected(t *testing.T) {
	p := newPace(0)
	p.listed(1_000_000, time.Second, nil)
	p.expect(125_000)
	if took, _ := p.list(1_000_000); took != time.Second {
		t.Errorf("it expects %v", took)
	}
}

// A list that takes long is measured before its end, and again at its end: after a quarter of a second, if nothing was
// measured before.
func TestAListThatTakesLongIsMeasuredMeanwhile(t *testing.T) {
	const part = 4 * enough
	type step struct {
		after time.Duration
		want  float64 // bytes a second
	}
	for name, c := range map[string]struct {
		before func(*pace)
		steps  []step
	}{
		"the rate is only expected": {func(*pace) {}, []step{{0, 1_000_000}, {time.Second / 2, 4 * part}, {time.Second, 4 * part}}},
		"the rate was measured": {func(p *pace) { p.listed(1_000_000, time.Second, nil) },
			[]step{{0, 1_000_000}, {firstProof, 1_000_000}, {2 * firstProof, math.Sqrt(1_000_000 * 3 * part / 6)}}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, func(o *Options) { o.Rate = 1_000_000 })
			c.before(h.pace.Load())
			body, chunk := h.Timed(io.NopCloser(strings.NewReader(strings.Repeat("x", 4*part)))), make([]byte, part)
			for _, step := range c.steps {
				h.clock.Step(step.after)
				if _, err := io.ReadFull(body, chunk); err != nil {
					t.Fatal(err)
				}
				if got := h.pace.Load().rate; math.Abs(got-step.want) > 1 {
					t.Errorf("after %v: %.0f bytes a second, want %.0f", step.after, got, step.want)
				}
			}
		})
	}
}

// A watch's initial state is a list, too.
func TestTheStateOfAWatchIsMeasured(t *testing.T) {
	state := strings.Repeat("x", 2*enough)
	for name, c := range map[string]struct {
		body string
		want float64 // bytes a second; 0: not measured
	}{
		"at its end":            {state + string(stateEnd), 5 * float64(len(state)+len(stateEnd))},
		"not before":            {state + string(stateEnd[:20]), 0},
		"if it is large enough": {"small" + string(stateEnd), 0},
	} {
		for how, reader := range map[string]func(io.Reader) io.Reader{
			"at once": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader, "by halves": iotest.HalfReader,
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				clock := clocktesting.NewFakeClock(time.Now())
				h := newHarness(t, func(o *Options) { o.Clock = clock })
				body, reads := reader(strings.NewReader(c.body)), 0
				timed := h.TimedState(io.NopCloser(readerFunc(func(p []byte) (int, error) {
					if reads++; reads == 2 {
						clock.Step(time.Second / 5)
					}
					return body.Read(p[:min(len(p), 4096)])
				})))
				if got, err := io.ReadAll(timed); err != nil || string(got) != c.body {
					t.Fatalf("%d bytes of %d, %v", len(got), len(c.body), err)
				}
				if h.pace.Load().known != (c.want > 0) || h.pace.Load().known && h.pace.Load().rate != c.want {
					t.Errorf("%v: %.0f bytes a second, want %.0f", h.pace.Load().known, h.pace.Load().rate, c.want)
				}
			})
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Lists that come at the same time share the link.
func TestListsAtTheSameTimeAreMeasuredTogether(t *testing.T) {
	h := newHarness(t, func(o *Options) { o.Rate = 0 })
	const size = 4 * enough
	bodies := make([]io.ReadCloser, 4)
	first := make([]byte, size/2)
	for i := range bodies {
		bodies[i] = h.Timed(io.NopCloser(strings.NewReader(strings.Repeat("x", size))))
		if _, err := io.ReadFull(bodies[i], first); err != nil {
			t.Fatal(err)
		}
	}
	h.clock.Step(time.Second / 5)
	for _, body := range bodies {
		if _, err := io.Copy(io.Discard, body); err != nil {
			t.Fatal(err)
		}
	}
	alone := 5.0 * size
	if rate := h.pace.Load().rate; rate < 2*alone || rate > 4*alone {
		t.Errorf("%.0f bytes a second, want 2 to 4 times the %.0f of one of them", rate, alone)
	}
}

func TestASmallListSaysNothingOfTheLink(t *testing.T) {
	h := newHarness(t, func(o *Options) { o.Rate = 0 })
	body := h.Timed(&slowly{Reader: strings.NewReader(strings.Repeat("x", enough-1)), step: func() { h.clock.Step(time.Minute) }})
	if _, err := io.Copy(io.Discard, body); err != nil {
		t.Fatal(err)
	}
	if h.pace.Load().known {
		t.Error("it was measured")
	}
}

// While nothing was measured, one list shows the rate, and the others wait for it.
func TestWhatWaitsForTheListThatShowsTheRate(t *testing.T) {
	const large = 10 * enough
	for name, c := range map[string]struct {
		before func(*pace)
		size   int64
		during func(*harness, *pace) // while it waits; nil: it must not wait
		want   bool
	}{
		"the first one does not":       {nil, large, nil, false},
		"a small one does not":         {func(p *pace) { p.shown(t.Context(), nil, large) }, enough - 1, nil, false},
		"none does once it was shown":  {func(p *pace) { p.shown(t.Context(), nil, large); p.listed(large, time.Second, nil) }, large, nil, false},
		"a large one, until it is":     {func(p *pace) { p.shown(t.Context(), nil, large) }, large, func(_ *harness, p *pace) { p.listed(large, time.Second, nil) }, true},
		"not longer than for a proof":  {func(p *pace) { p.shown(t.Context(), nil, large) }, large, func(h *harness, _ *pace) { h.clock.Step(firstProof) }, false},
		"an expected rate is shown as": {func(p *pace) { p.expect(1000); p.shown(t.Context(), nil, large) }, large, func(_ *harness, p *pace) { p.listed(large, time.Second, nil) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			h, p := newHarness(t), newPace(0)
			if c.before != nil {
				c.before(p)
			}
			got := make(chan bool, 1)
			go func() { got <- p.shown(t.Context(), h.clock, c.size) }()
			if c.during != nil {
				eventually.True(t, "it waits", h.clock.HasWaiters)
				c.during(h, p)
			}
			if got := <-got; got != c.want {
				t.Errorf("shown: %v, want %v", got, c.want)
			}
		})
	}
}

// If the list that was to show the rate has not done so, the next one is to.
func TestAStuckListIsFollowedByTheNext(t *testing.T) {
	h, p := newHarness(t), newPace(0)
	p.shown(t.Context(), h.clock, enough)
	waits := make(chan bool, 1)
	go func() { waits <- p.shown(t.Context(), h.clock, enough) }()
	eventually.True(t, "it waits", h.clock.HasWaiters)
	h.clock.Step(firstProof)
	<-waits
	if p.shown(t.Context(), h.clock, enough); p.shows == nil {
		t.Error("no list is to show the rate")
	}
}

// A list that begins slowly, as over a connection that has been idle, is measured by all of it.
func TestTheEndOfAListCountsInsteadOfItsPart(t *testing.T) {
	for name, c := range map[string]struct {
		between func(*pace)
		want    float64
	}{
		"if nothing else was measured meanwhile": {func(*pace) {}, 4_000_000},
		"beside what was":                        {func(p *pace) { p.listed(1_000_000, time.Second, nil) }, math.Sqrt(4_000_000 * math.Sqrt(100_000*1_000_000))},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPace(0)
			part := p.listed(100_000, time.Second, nil)
			c.between(p)
			p.listed(4_000_000, time.Second, part)
			if math.Abs(p.rate-c.want) > 1 {
				t.Errorf("%.0f bytes a second, want %.0f", p.rate, c.want)
			}
		})
	}
}
