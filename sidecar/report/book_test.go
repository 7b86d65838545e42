package report

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rockpool.dev/sidecar/outage"
)

var start = time.Date(2026, 11, 30, 8, 0, 0, 0, time.UTC)

func at(d time.Duration) time.Time { return start.Add(d) }

func cutBetween(lost, restored time.Duration) outage.Outage {
	return outage.Outage{Lost: at(lost), Restored: at(restored), Evidence: "connection refused"}
}

func TestWhatIsReported(t *testing.T) {
	const evidence = "the link to the API server was lost: connection refused"
	for _, test := range []struct {
		name      string
		does      func(*book)
		want      []fact
		condition string
		changed   time.Time
	}{
		{name: "nothing of a link that was not lost", does: func(*book) {}},
		{
			name: "one outage with its true times",
			does: func(b *book) {
				o := cutBetween(0, 2*time.Hour+3*time.Minute+400*time.Millisecond)
				o.Answered, o.Accepted, o.Refused, o.Oldest = 120, 3, 14, 2*time.Hour+5*time.Minute
				b.outage(o)
			},
			want: []fact{
				{LinkLost, evidence, true, at(0), at(0), 1},
				{LinkRestored, "cut for 2h3m0s; requests answered from the cache: 120 (oldest answer: 2h5m0s), writes accepted for later: 3, requests refused: 14",
					false, at(2*time.Hour + 3*time.Minute + 400*time.Millisecond), at(2*time.Hour + 3*time.Minute + 400*time.Millisecond), 1},
			},
			condition: "cut for 2h3m0s until 2026-11-30T10:03:00Z, oldest answer 2h5m0s",
			changed:   at(2*time.Hour + 3*time.Minute + 400*time.Millisecond),
		},
		{
			name: "no age if nobody has asked",
			does: func(b *book) { b.outage(cutBetween(0, time.Minute)) },
			want: []fact{
				{LinkLost, evidence, true, at(0), at(0), 1},
				{LinkRestored, "cut for 1m0s; requests answered from the cache: 0, writes accepted for later: 0, requests refused: 0", false, at(time.Minute), at(time.Minute), 1},
			},
			condition: "cut for 1m0s until 2026-11-30T08:01:00Z", changed: at(time.Minute),
		},
		{
			name: "a link that flaps is one pair of Events",
			does: func(b *book) {
				for i := range 60 {
					o := cutBetween(time.Duration(i)*10*time.Second, time.Duration(i)*10*time.Second+time.Duration(1+i%3)*time.Second)
					o.Answered, o.Oldest = 1, time.Duration(i)*time.Second
					b.outage(o)
				}
			},
			want: []fact{
				{LinkLost, evidence, true, at(0), at(590 * time.Second), 60},
				{LinkRestored, "cut 60 times for 2m0s in all, 3s at most; requests answered from the cache: 60 (oldest answer: 59s), writes accepted for later: 0, requests refused: 0",
					false, at(time.Second), at(593 * time.Second), 60},
			},
			condition: "cut 60 times for 2m0s in all, 3s at most until 2026-11-30T08:09:53Z, oldest answer 59s", changed: at(593 * time.Second),
		},
		{
			name: "what happened to the cache, in order, and no condition of the link",
			does: func(b *book) {
				b.note(QuotaReached, "full", at(2*time.Minute))
				b.note(CacheRebuilt, "damaged", at(time.Minute))
				b.note(QuotaReached, "full again", at(3*time.Minute))
			},
			want: []fact{
				{CacheRebuilt, "damaged", true, at(time.Minute), at(time.Minute), 1},
				{QuotaReached, "full again", true, at(2 * time.Minute), at(3 * time.Minute), 2},
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var b book
			test.does(&b)
			facts, condition, changed := b.take(at(time.Hour))
			if diff := cmp.Diff(test.want, facts, cmp.AllowUnexported(fact{})); diff != "" {
				t.Errorf("facts (-want +got):\n%s", diff)
			}
			if condition != test.condition || !changed.Equal(test.changed) {
				t.Errorf("condition %q at %s, want %q at %s", condition, changed, test.condition, test.changed)
			}
			if again, _, _ := b.take(at(time.Hour)); len(again) > 0 || !b.due().IsZero() {
				t.Errorf("%v are reported twice", again)
			}
		})
	}
}

func TestWhenIsReported(t *testing.T) {
	var b book
	if !b.due().IsZero() {
		t.Errorf("nothing is due at %s", b.due())
	}
	b.outage(cutBetween(0, time.Minute))
	if want := at(time.Minute + settle); !b.due().Equal(want) {
		t.Errorf("the first outage at %s, want %s", b.due(), want)
	}
	b.outage(cutBetween(2*time.Minute, 3*time.Minute))
	if want := at(time.Minute + settle); !b.due().Equal(want) {
		t.Errorf("a further outage moves it to %s, want %s", b.due(), want)
	}
	b.take(at(4 * time.Minute))
	b.outage(cutBetween(5*time.Minute, 6*time.Minute))
	if want := at(4*time.Minute + gap); !b.due().Equal(want) {
		t.Errorf("the next batch at %s, want %s", b.due(), want)
	}
	b.take(at(10 * time.Minute))
	b.outage(cutBetween(11*time.Minute, 12*time.Minute))
	if want := at(10*time.Minute + 2*gap); !b.due().Equal(want) {
		t.Errorf("while there is always something at %s, want %s", b.due(), want)
	}
	b.take(at(20 * time.Minute))
	b.outage(cutBetween(time.Hour, 2*time.Hour))
	if want := at(2*time.Hour + settle); !b.due().Equal(want) {
		t.Errorf("a later outage at %s, want %s", b.due(), want)
	}
}

// TestALinkThatFlapsForADayIsAFewReports counts what is sent of a link that is lost every ten seconds,
// while the cache is full.
func TestALinkThatFlapsForADayIsAFewReports(t *testing.T) {
	var b book
	batches, lost, restored, full := 0, 0, 0, 0
	for now := time.Duration(0); now < 24*time.Hour; now += 10 * time.Second {
		b.outage(cutBetween(now, now+time.Second))
		b.note(QuotaReached, "full", at(now))
		if b.due().After(at(now + 9*time.Second)) {
			continue
		}
		batches++
		all, _, _ := b.take(at(now + 9*time.Second))
		for _, f := range all {
			switch f.reason {
			case LinkLost:
				lost += f.count
			case LinkRestored:
				restored++
			case QuotaReached:
				full++
			}
		}
	}
	left, _, _ := b.take(at(48 * time.Hour))
	for _, f := range left {
		if f.reason == LinkLost {
			lost += f.count
		}
	}
	if batches < 20 || batches > 30 || restored != batches || full < 20 || full > 25 {
		t.Errorf("%d batches with %d Events about the link and %d about the quota", batches, restored, full)
	}
	if lost != 24*60*6 {
		t.Errorf("%d outages are counted", lost)
	}
}

func TestANoteThatIsRepeatedWaitsForAnHour(t *testing.T) {
	var b book
	b.note(QuotaReached, "full", at(0))
	if all, _, _ := b.take(b.due()); len(all) != 1 || !b.due().IsZero() {
		t.Errorf("%v, and then at %s", all, b.due())
	}
	b.note(QuotaReached, "full", at(time.Minute))
	b.note(CacheRebuilt, "damaged", at(10*time.Minute))
	if want := at(10*time.Minute + settle); !b.due().Equal(want) {
		t.Errorf("another reason at %s, want %s", b.due(), want)
	}
	if all, _, _ := b.take(b.due()); len(all) != 1 || all[0].reason != CacheRebuilt {
		t.Errorf("%v", all)
	}
	if want := at(settle + noteGap); !b.due().Equal(want) {
		t.Errorf("the same reason at %s, want %s", b.due(), want)
	}
	if all, _, _ := b.take(b.due()); len(all) != 1 || all[0].reason != QuotaReached || all[0].count != 1 {
		t.Errorf("%v", all)
	}
}
