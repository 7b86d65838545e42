package live

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
)

// A link that is another one now is noticed with its first list.
func TestTheRateFollowsTheLink(t *testing.T) {
	const thin, fast = 100_000, 30_000_000
	second := func(p *pace, rate int64) { p.listed(rate, time.Second) }
	p := newPace(firstRate)
	second(p, measured-1)
	if took := p.list(firstRate); took != time.Second {
		t.Errorf("after a list that is too small: %v", took)
	}
	second(p, fast)
	if took := p.list(fast); took != time.Second {
		t.Errorf("the first list does not count alone: %v", took)
	}
	const list = 6_000_000 // of 2,000 pods
	if took := p.list(list); took > firstProof {
		t.Errorf("a fast link: %v", took)
	}
	second(p, thin)
	if took := p.list(list); took < firstProof {
		t.Errorf("a link that is thin now: %v", took)
	}
	second(p, fast)
	if took := p.list(list); took > firstProof {
		t.Errorf("a link that is fast again: %v", took)
	}
	p.listed(measured, 0)
	if took := p.list(list); took <= 0 {
		t.Errorf("a list that took no time: %v", took)
	}
}

// A list that takes long is measured before its end.
func TestAListThatTakesLongIsMeasuredMeanwhile(t *testing.T) {
	h := newHarness(t, func(o *Options) { o.Rate = 1_000_000_000 })
	body, chunk := h.Timed(io.NopCloser(strings.NewReader(strings.Repeat("x", 3*measured)))), make([]byte, measured)
	for _, step := range []struct {
		after time.Duration
		want  float64 // bytes a second
	}{{0, 1_000_000_000}, {firstProof, 1_000_000_000}, {2 * firstProof, 3 * measured / 6}} {
		h.clock.Step(step.after)
		if _, err := io.ReadFull(body, chunk); err != nil {
			t.Fatal(err)
		}
		if h.pace.rate != step.want {
			t.Errorf("after %v: %.0f bytes a second, want %.0f", step.after, h.pace.rate, step.want)
		}
	}
}

// A watch's initial state is a list, too.
func TestTheStateOfAWatchIsMeasured(t *testing.T) {
	state := strings.Repeat("x", 2*measured)
	for name, c := range map[string]struct {
		body string
		want float64 // bytes a second; 0: not measured
	}{
		"at its end":        {state + string(stateEnd), float64(len(state) + len(stateEnd))},
		"not before":        {state + string(stateEnd[:20]), 0},
		"if it says enough": {"small" + string(stateEnd), 0},
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
				if h.pace.known != (c.want > 0) || h.pace.known && h.pace.rate != c.want {
					t.Errorf("%v: %.0f bytes a second, want %.0f", h.pace.known, h.pace.rate, c.want)
				}
			})
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
