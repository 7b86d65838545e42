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
		"nothing is known: the link may be thin":                       {unknown, nil, Proven},
		"a link was fast, and nothing says otherwise":                  {fast, nil, Pass},
		"a link was thin, and nothing says otherwise":                  {thin, nil, Proven},
		"nothing was known, and the link is fast":                      {unknown, []list{at(fast)}, Pass},
		"nothing was known, and the link is thin":                      {unknown, []list{at(thin)}, Proven},
		"a link was fast and is thin":                                  {fast, []list{at(thin)}, Proven},
		"a link was thin and is fast":                                  {thin, []list{at(fast)}, Pass},
		"a link was very fast and is thin: what was does not count":    {1000 * fast, []list{at(thin)}, Proven},
		"a link was very thin and is fast: what was does not count":    {thin / 1000, []list{at(fast)}, Pass},
		"a link was fast; a small list says nothing":                   {fast, []list{{enough - 1, time.Minute}}, Pass},
		"a link was thin; a small list says nothing":                   {thin, []list{{enough - 1, 0}}, Proven},
		"a link has become thin meanwhile":                             {unknown, []list{at(fast), at(thin)}, Proven},
		"a link has become fast meanwhile":                             {unknown, []list{at(thin), at(thin), at(fast), at(fast)}, Pass},
		"a link is fast again":                                         {unknown, []list{at(fast), at(thin), at(fast)}, Pass},
		"a list that took no time is of a fast link":                   {thin, []list{{enough, 0}}, Pass},
		"of a link that was fast, a part of the first list is thin":    {fast, []list{{enough, time.Second}}, Proven},
		"a link was fast, is thin, and the same again after that list": {fast, []list{at(thin), at(thin)}, Proven},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPace(firstRate)
			if c.kept != unknown {
				p.expect(c.kept)
			}
			for _, l := range c.lists {
				p.listed(l.size, l.took)
			}
			info := request.Parse(httptest.NewRequest(http.MethodGet, path, nil))
			f := Facts{Save: true, Info: &info, Principal: "web", Recorded: true, Version: "100", List: p.list(6_000_000), Proof: p.proofTime()}
			if v, _ := Decide(f); v != c.verdict {
				t.Errorf("%s, with a list of %v and a proof of %v", v, f.List, f.Proof)
			}
		})
	}
}

// What an earlier process has measured does not replace what this one has.
func TestAMeasuredRateIsNotExpected(t *testing.T) {
	p := newPace(firstRate)
	p.listed(1_000_000, time.Second)
	p.expect(125_000)
	if took := p.list(1_000_000); took != time.Second {
		t.Errorf("it expects %v", took)
	}
}

// A list that takes long is measured before its end: within its first second, if nothing was
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
		"the rate is only expected": {func(*pace) {}, []step{{0, 1_000_000}, {time.Second + 1, 2 * part}, {time.Second, 2 * part}}},
		"the rate was measured": {func(p *pace) { p.listed(1_000_000, time.Second) },
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
		"at its end":            {state + string(stateEnd), float64(len(state) + len(stateEnd))},
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
						clock.Step(time.Second)
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
