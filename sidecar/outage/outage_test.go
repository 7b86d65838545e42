package outage

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/sidecar/tally"
	"rockpool.dev/tests/eventually"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is a Keeper with its clock, its log and what it has told.
type site struct {
	*Keeper
	now   *clocktesting.FakeClock
	lines *observer.ObservedLogs

	mu      sync.Mutex
	waiting int
	ended   []Outage
}

var start = time.Date(2026, 1, 5, 8, 0, 0, 0, time.UTC)

func newSite() *site {
	core, lines := observer.New(zap.InfoLevel)
	s := &site{now: clocktesting.NewFakeClock(start), lines: lines}
	s.Keeper = New(Options{
		Waiting: func() int {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.waiting
		},
		Ended: func(o Outage) { s.ended = append(s.ended, o) },
		Log:   tally.New(zap.New(core), s.now), Clock: s.now,
	})
	return s
}

func (s *site) waits(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = n
}

func at(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

func TestWhatAnOutageWas(t *testing.T) {
	for _, test := range []struct {
		name string
		does func(*site)
		want []Outage
	}{
		{"a link that was never lost", func(s *site) { s.Up(); s.Up() }, nil},
		{"a link that is lost and comes back", func(s *site) {
			s.Up()
			s.now.Step(10 * time.Second)
			s.Down("refused")
			s.now.Step(time.Minute)
			s.Up()
		}, []Outage{{Lost: at(10), Restored: at(70), Evidence: "refused"}}},
		{"the first evidence counts", func(s *site) {
			s.Down("refused")
			s.now.Step(time.Second)
			s.Down("silent")
			s.Up()
		}, []Outage{{Lost: at(0), Restored: at(1), Evidence: "refused"}}},
		{"requests are counted, and the oldest answer", func(s *site) {
			s.Down("refused")
			s.Answered(2*time.Second, nil)
			s.Answered(9*time.Second, nil)
			s.Answered(3*time.Second, nil)
			s.Accepted()
			s.Refused()
			s.Refused()
			s.Up()
		}, []Outage{{Lost: at(0), Restored: at(0), Evidence: "refused", Answered: 3, Oldest: 9 * time.Second, Accepted: 1, Refused: 2}}},
		{"requests that show that the link is down belong to the outage", func(s *site) {
			s.Up()
			s.Answered(time.Second, nil)
			s.Down("refused")
			s.Answered(2*time.Second, nil)
			s.Up()
		}, []Outage{{Lost: at(0), Restored: at(0), Evidence: "refused", Answered: 2, Oldest: 2 * time.Second}}},
		{"a doubt that has ended belongs to no outage", func(s *site) {
			s.Answered(time.Hour, nil)
			s.Up()
			s.Down("refused")
			s.Up()
		}, []Outage{{Lost: at(0), Restored: at(0), Evidence: "refused"}}},
		{"nor does one of which nothing came", func(s *site) { // such as a 503 of a load balancer
			s.Up()
			s.Answered(time.Hour, nil)
			s.now.Step(2 * doubtLasts)
			s.Refused()
			s.now.Step(doubtLasts)
			s.Refused()
			s.Down("refused")
			s.Up()
		}, []Outage{{Lost: at(180), Restored: at(180), Evidence: "refused", Refused: 2}}},
		{"or another outage much later", func(s *site) {
			s.Up()
			s.Answered(time.Hour, nil)
			s.now.Step(2 * doubtLasts)
			s.Down("refused")
			s.Up()
		}, []Outage{{Lost: at(120), Restored: at(120), Evidence: "refused"}}},
		{"an outage that an earlier run has seen begin counts from there", func(s *site) {
			s.Resume(at(-3600), "silent")
			s.now.Step(time.Second)
			s.Down("refused")
			s.Up()
		}, []Outage{{Lost: at(-3600), Restored: at(1), Evidence: "silent"}}},
		{"also when the cache is opened only after the link was found to be down", func(s *site) {
			s.Down("refused")
			s.Resume(at(-3600), "silent")
			s.Up()
		}, []Outage{{Lost: at(-3600), Restored: at(0), Evidence: "silent"}}},
		{"also when the link was back before the start", func(s *site) {
			s.Resume(at(-3600), "silent")
			s.Up()
		}, []Outage{{Lost: at(-3600), Restored: at(0), Evidence: "silent"}}},
		{"but not when the link was up since the start", func(s *site) {
			s.Up()
			s.Resume(at(-3600), "silent")
			s.Down("refused")
			s.Up()
		}, []Outage{{Lost: at(0), Restored: at(0), Evidence: "refused"}}},
		{"each outage once", func(s *site) {
			for range 2 {
				s.Down("refused")
				s.Refused()
				s.now.Step(time.Second)
				s.Up()
			}
		}, []Outage{{Lost: at(0), Restored: at(1), Evidence: "refused", Refused: 1}, {Lost: at(1), Restored: at(2), Evidence: "refused", Refused: 1}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSite()
			test.does(s)
			if diff := cmp.Diff(test.want, s.ended); diff != "" {
				t.Errorf("outages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAClockThatWasSetBackMakesNoNegativeOutage(t *testing.T) {
	if o := (&Outage{Lost: at(10), Restored: at(0)}); o.Lasted() != 0 {
		t.Error(o.Lasted())
	}
}

func TestTheFirstAnswerIsLogged(t *testing.T) {
	s := newSite()
	s.Down("refused")
	for range 100 {
		s.Answered(42*time.Second, func() []zap.Field { return []zap.Field{zap.String("verb", "list")} })
	}
	lines := s.lines.TakeAll()
	if len(lines) != 1 || lines[0].Message != "answering from the cache" || lines[0].ContextMap()["age"] != "42s" || lines[0].ContextMap()["verb"] != "list" {
		t.Errorf("%v", lines)
	}
}

// run runs the Keeper until the test ends.
func (s *site) run(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
}

func TestThatAllHasCaughtUpIsLoggedOnceAllWatchesAreBack(t *testing.T) {
	s := newSite()
	s.run(t)
	s.Down("refused")
	s.Answered(time.Hour, nil)
	s.waits(3)
	s.now.Step(2 * time.Hour)
	s.lines.TakeAll()
	s.Up()
	eventually.True(t, "it waits for the watches", s.now.HasWaiters)
	if n := s.lines.Len(); n != 0 {
		t.Errorf("%d lines before the watches are back", n)
	}
	s.waits(0)
	s.now.Step(pollInterval)
	eventually.True(t, "a line", func() bool { return s.lines.Len() == 1 })
	line := s.lines.All()[0]
	want := map[string]any{
		"lost": start, "lasted": "2h0m0s", "answered": int64(1), "oldestAnswer": "1h0m0s", "accepted": int64(0), "refused": int64(0),
		"watches": int64(3), "waiting": int64(0), "took": "500ms",
	}
	if diff := cmp.Diff(want, line.ContextMap()); line.Message != "caught up after an outage" || diff != "" {
		t.Errorf("%s (-want +got):\n%s", line.Message, diff)
	}
}

func TestWatchesThatDoNotComeBackAreLogged(t *testing.T) {
	s := newSite()
	s.run(t)
	s.waits(2)
	s.Down("refused")
	s.Up()
	eventually.True(t, "it waits for the watches", s.now.HasWaiters)
	s.waits(1)
	s.now.Step(catchUpPatience)
	eventually.True(t, "a line", func() bool { return s.lines.Len() == 1 })
	if line := s.lines.All()[0]; line.Message != "some watches are not back after an outage" || line.ContextMap()["waiting"] != int64(1) {
		t.Errorf("%s %v", line.Message, line.ContextMap())
	}
}

func TestTheNextOutageEndsTheWaitForWatches(t *testing.T) {
	s := newSite()
	s.run(t)
	s.waits(1)
	s.Down("refused")
	s.Up()
	eventually.True(t, "it waits for the watches", s.now.HasWaiters)
	s.Down("refused")
	s.Refused()
	s.now.Step(pollInterval)
	s.waits(0)
	s.Up()
	eventually.True(t, "a line", func() bool { return s.lines.Len() > 0 })
	if lines := s.lines.All(); len(lines) != 1 || lines[0].ContextMap()["refused"] != int64(1) {
		t.Errorf("%v, want one line of the second outage", lines)
	}
}
