package watch

import (
	"net/http"
	"testing"
	"time"

	"rockpool.dev/tests/eventually"
)

// refusal is an answer of the API server that asks to come back later.
func refusal(status int, retryAfter string) *http.Response {
	header := http.Header{"Content-Type": {"application/json"}, "Audit-Id": {"1"}}
	if retryAfter != "" {
		header.Set("Retry-After", retryAfter)
	}
	return &http.Response{StatusCode: status, Header: header, Body: http.NoBody}
}

func TestAWatchComesBackLaterWhenTheAPIServerAsksForThat(t *testing.T) {
	for name, tt := range map[string]struct {
		refusal *http.Response
		early   time.Duration // too soon
	}{
		"429 with Retry-After":             {refusal(429, "7"), 7*time.Second - time.Millisecond},
		"503 with Retry-After":             {refusal(503, "20"), 20*time.Second - time.Millisecond},
		"500 without Retry-After":          {refusal(500, ""), retryFirst - time.Millisecond},
		"Retry-After beyond the bound":     {refusal(429, "86400"), maxRetryAfter - time.Millisecond},
		"Retry-After that is not a number": {refusal(429, "Mon, 05 Jan 2026 08:00:00 GMT"), retryFirst - time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			h, first, second := newHarness(t), newStream(), newStream()
			answers := []*http.Response{tt.refusal, second.response()}
			h.cohorts.random = func() float64 { return 0 }
			h.link.SetAnswer(func(*http.Request) (*http.Response, error) {
				next := answers[0]
				answers = answers[1:]
				return next, nil
			})
			body := h.open(t.Context(), first)
			r := read(body)
			first.interrupt()
			eventually.True(t, "the refusal", func() bool { h.clock.Step(time.Nanosecond); return len(h.link.Requests()) == 1 })
			eventually.True(t, "the watch waits", h.clock.HasWaiters)
			h.clock.Step(tt.early)
			if n := len(h.link.Requests()); n != 1 {
				t.Errorf("%d requests after %s", n, tt.early)
			}
			h.clock.Step(time.Second)
			eventually.True(t, "the stream", second.reading.Load)
			if err := body.Close(); err != nil {
				t.Error(err)
			}
			eventually.Receive(t, "the end of Read", r.err)
		})
	}
}

// A watch that only lost its connection does not wait as after an outage.
func TestOnlyAnOutageMakesAWatchWaitForItsTurn(t *testing.T) {
	for name, tt := range map[string]struct {
		cut, asks bool
		wait      time.Duration
	}{
		"without an outage":                    {false, false, spreadEach},
		"after an outage":                      {true, false, 20 * time.Second},
		"after an outage, if its program asks": {true, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			h, first, second := newHarness(t), newStream(), newStream()
			h.cohorts.random = func() float64 { return 1 }
			h.link.SetOutage(200 * time.Second)
			h.link.SetAnswer(func(*http.Request) (*http.Response, error) { return second.response(), nil })
			body := h.open(t.Context(), first)
			r := read(body)
			if tt.cut {
				h.link.Cut()
			}
			first.interrupt()
			if tt.cut {
				eventually.True(t, "the watch waits for the link", func() bool { return h.link.Waiting() == 1 })
				h.link.Restore()
			}
			eventually.True(t, "the watch waits for its turn", h.clock.HasWaiters)
			if tt.wait > 0 {
				h.clock.Step(tt.wait - time.Millisecond)
				if n := len(h.link.Requests()); n != 0 {
					t.Errorf("%d requests before %s", n, tt.wait)
				}
			}
			if tt.asks {
				h.Asked()
			} else {
				h.clock.Step(time.Millisecond)
			}
			eventually.True(t, "the stream", second.reading.Load)
			if err := body.Close(); err != nil {
				t.Error(err)
			}
			eventually.Receive(t, "the end of Read", r.err)
		})
	}
}
