package record

import (
	"context"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/tests/fakeclock"
)

// Ten objects change in turn, one each second, for two days. Changes that wait are written together,
// each object once.
func TestADayKeepsToItsBudgetAndUsesIt(t *testing.T) {
	const group, row = 12 << 10, 1400 // what a transaction writes besides its rows, and a row
	for _, budget := range []int64{4 << 20, 50 << 20, 200 << 20} {
		p := pace{Budget: Budget{PerDay: budget}}
		start := time.UnixMilli(1_700_000_000_000)
		var written, first, second int64
		var waiting map[int]bool
		var due time.Time
		for i := range 2 * 24 * 60 * 60 {
			now := start.Add(time.Duration(i) * time.Second)
			if waiting == nil {
				waiting = map[int]bool{}
			}
			waiting[i%10] = true
			if now.Before(due) {
				continue
			}
			if d := p.wait(now, written); d > 0 {
				due = now.Add(d)
				continue
			}
			written += group + int64(len(waiting))*row
			waiting = nil
			if i < 24*60*60 {
				first = written
			}
		}
		second = written - first
		for day, n := range []int64{first, second} {
			if n > budget/100*105 || n < budget/100*85 {
				t.Errorf("with a budget of %d bytes, %d are written on day %d", budget, n, day+1)
			}
		}
	}
}

func TestThePaceOutlivesAClockThatIsSetBack(t *testing.T) {
	p := pace{Budget: Budget{PerDay: 10 << 20}}
	now := time.UnixMilli(1_700_000_000_000)
	p.wait(now, 0)
	if d := p.wait(now.Add(-24*time.Hour), 2<<20); d < time.Hour || d > 3*time.Hour {
		t.Errorf("after twice the burst a group waits %v, want what 1 MiB takes", d)
	}
	if d := p.wait(now, 2<<20); d != 0 {
		t.Errorf("a day later a group waits %v", d)
	}
}

// bulky is an operation that takes an eighth of the queue's memory.
type bulky struct{ poison }

func (bulky) size() int { return DefaultMaxPending / 8 }

func TestAGroupWaitsForTheBudget(t *testing.T) {
	const burst = 1 << 20
	for name, tt := range map[string]struct {
		after func(h *harness, c fakeclock.Clock) // ends the wait
		over  bool
	}{
		"until enough time has passed": {after: func(_ *harness, c fakeclock.Clock) { c.Step(24 * time.Hour) }},
		"unless somebody reads": {after: func(h *harness, _ fakeclock.Clock) {
			h.enqueue(bulky{})
			go func() { _ = h.Flush(h.t.Context()) }() // ends with the test
		}},
		"as long as there is memory": {over: true, after: func(h *harness, _ fakeclock.Clock) {
			for range 5 {
				h.enqueue(bulky{})
			}
		}},
		"as long as there is memory, which empty lists and new watches take, too": {over: true, after: func(h *harness, _ fakeclock.Clock) {
			for range DefaultMaxPending / overhead / 2 {
				h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := idleHarness(t, t.TempDir(), 0)
			c := fakeclock.New()
			written := int64(0)
			h.clock, h.pace = c, pace{Budget: Budget{PerDay: 10 * burst, Written: func() (int64, error) { return written, nil }}}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			h.afford(ctx) // the burst is left
			written = 2 * burst
			before := counter(t, overBudgetTotal)
			done := make(chan struct{})
			go func() { h.afford(ctx); close(done) }()
			if err := wait.PollUntilContextTimeout(ctx, time.Millisecond, 10*time.Second, true, func(context.Context) (bool, error) { return c.HasWaiters(), nil }); err != nil {
				t.Fatal("it does not wait")
			}
			select {
			case <-done:
				t.Fatal("it does not wait")
			default:
			}
			tt.after(h, c)
			select {
			case <-done:
			case <-time.After(10 * time.Second):
				t.Fatal("it waits")
			}
			if over := counter(t, overBudgetTotal) > before; over != tt.over {
				t.Errorf("written over the budget: %v", over)
			}
		})
	}
}

func TestAGapIsReportedBeforeItIsWritten(t *testing.T) {
	for name, budget := range map[string]int64{"with a budget": 1 << 20, "without one the next group finds it": 0} {
		t.Run(name, func(t *testing.T) {
			h := idleHarness(t, t.TempDir(), 0)
			h.pace.PerDay = budget
			h.read(h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(listOf(10)))))
			w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
			defer w.Close()
			h.write(t.Context(), h.take())
			h.max = 1
			h.events(w, "ADDED a 11") // does not fit
			if n := h.mustBeListed(); (n == 1) != (budget > 0) {
				t.Errorf("%d collections are to be listed", n)
			}
		})
	}
}
