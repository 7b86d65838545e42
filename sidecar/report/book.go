package report

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"rockpool.dev/sidecar/outage"
)

// The reasons of Events.
const (
	LinkLost     = "LinkLost"
	LinkRestored = "LinkRestored"
	// CacheRebuilt: the file of a cache was damaged or lost, and an empty one has taken its place.
	CacheRebuilt = "CacheRebuilt"
	// QuotaReached: recordings were evicted because the cache is full.
	QuotaReached = "QuotaReached"
)

const (
	// settle is how long after the first change a batch is sent at the earliest. Programs come first.
	settle = 10 * time.Second
	// gap is the least time between two batches. It doubles, up to longestGap, while there is always
	// something to report: a link that flaps all day.
	gap        = 5 * time.Minute
	longestGap = time.Hour
	// noteGap is the least time between two Events with one reason that are not about the link. A full
	// cache evicts again and again.
	noteGap = time.Hour
	// maxEvidence bounds the evidence of a lost link in a report, in bytes.
	maxEvidence = 200
)

// fact is what one Event says.
type fact struct {
	reason, message string
	warning         bool
	first, last     time.Time // true times, not those of the report
	count           int
}

// summary is of all outages since the last batch.
type summary struct {
	count                      int
	lost, lastLost             time.Time // the first and the last one
	restored, lastRestored     time.Time
	evidence                   string // of the last one
	total, longest, oldest     time.Duration
	answered, accepted, denied int
}

// book has what is not reported yet. It is not safe for concurrent use.
type book struct {
	outages summary
	notes   map[string]*fact     // by reason
	told    map[string]time.Time // when a reason of notes was taken last
	sent    time.Time            // when the last batch was taken; zero: never
	wait    time.Duration        // from then to the next batch
}

// outage adds an outage that has ended.
func (b *book) outage(o outage.Outage) {
	s := &b.outages
	if s.count == 0 {
		s.lost, s.restored = o.Lost, o.Restored
	}
	s.count++
	s.lastLost, s.lastRestored, s.evidence = o.Lost, o.Restored, o.Evidence
	s.total += o.Lasted()
	s.longest, s.oldest = max(s.longest, o.Lasted()), max(s.oldest, o.Oldest)
	s.answered, s.accepted, s.denied = s.answered+o.Answered, s.accepted+o.Accepted, s.denied+o.Refused
}

// note adds something else that happened at a time. Of those with one reason the last message counts.
func (b *book) note(reason, message string, at time.Time) {
	if b.notes == nil {
		b.notes = map[string]*fact{}
	}
	f := b.notes[reason]
	if f == nil {
		f = &fact{reason: reason, warning: true, first: at}
		b.notes[reason] = f
	}
	f.message, f.last, f.count = message, at, f.count+1
}

// noteDue is when a note may be sent.
func (b *book) noteDue(f *fact) time.Time {
	due := f.first.Add(settle)
	if told, ok := b.told[f.reason]; ok {
		due = later(due, told.Add(noteGap))
	}
	return due
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// due is when the next batch may be sent. Zero: there is nothing to report.
func (b *book) due() (due time.Time) {
	if b.outages.count > 0 {
		due = b.outages.restored.Add(settle)
	}
	for _, f := range b.notes {
		if at := b.noteDue(f); due.IsZero() || at.Before(due) {
			due = at
		}
	}
	if !due.IsZero() && !b.sent.IsZero() {
		due = later(due, b.sent.Add(b.wait))
	}
	return due
}

// take gives all that is due, and keeps the rest. condition is empty if the link was not lost.
func (b *book) take(now time.Time) (facts []fact, condition string, changed time.Time) {
	if s := &b.outages; s.count > 0 {
		facts = append(facts,
			fact{LinkLost, "the link to the API server was lost: " + cut(s.evidence, maxEvidence), true, s.lost, s.lastLost, s.count},
			fact{LinkRestored, s.restoredMessage(), false, s.restored, s.lastRestored, s.count})
		condition, changed = s.condition(), s.lastRestored
	}
	b.outages = summary{}
	for reason, f := range b.notes {
		if b.noteDue(f).After(now) {
			continue
		}
		facts = append(facts, *f)
		delete(b.notes, reason)
		if b.told == nil {
			b.told = map[string]time.Time{}
		}
		b.told[reason] = now
	}
	slices.SortFunc(facts, func(x, y fact) int { return cmp.Or(x.first.Compare(y.first), cmp.Compare(x.reason, y.reason)) })
	if !b.sent.IsZero() && now.Sub(b.sent) < 2*b.wait {
		b.wait = min(2*b.wait, longestGap)
	} else {
		b.wait = gap
	}
	b.sent = now
	return facts, condition, changed
}

// restoredMessage is for a person who reads Events.
func (s *summary) restoredMessage() string {
	return fmt.Sprintf("%s; requests answered from the cache: %d%s, writes accepted for later: %d, requests refused: %d",
		s.away(), s.answered, s.age(" (oldest answer: %s)"), s.accepted, s.denied)
}

// condition is for a column of kubectl get.
func (s *summary) condition() string {
	return s.away() + " until " + s.lastRestored.UTC().Format(time.RFC3339) + s.age(", oldest answer %s")
}

func (s *summary) away() string {
	if s.count == 1 {
		return "cut for " + rounded(s.total)
	}
	return fmt.Sprintf("cut %d times for %s in all, %s at most", s.count, rounded(s.total), rounded(s.longest))
}

// age says how old answers became; nothing if the cache has answered nothing.
func (s *summary) age(format string) string {
	if s.answered == 0 {
		return ""
	}
	return fmt.Sprintf(format, rounded(s.oldest))
}

// rounded is to a second, because that is what people compare.
func rounded(d time.Duration) string { return d.Round(time.Second).String() }
