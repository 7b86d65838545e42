package tally

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	clocktesting "k8s.io/utils/clock/testing"
)

var start = time.Date(2026, 1, 5, 8, 0, 0, 0, time.UTC)

func newLog(level zapcore.Level) (*Log, *clocktesting.FakePassiveClock, *observer.ObservedLogs) {
	core, lines := observer.New(level)
	now := clocktesting.NewFakePassiveClock(start)
	return New(zap.New(core), now), now, lines
}

func line(verb string) Line {
	return Line{
		Level: zap.InfoLevel, Message: "request", Kind: []zap.Field{zap.String("verb", verb), zap.Int("status", 503)},
		Fields: []zap.Field{zap.String("name", "a")}, Err: errors.New("down"),
	}
}

// text shows the lines so far and takes them away.
func text(lines *observer.ObservedLogs) string {
	var b strings.Builder
	for _, l := range lines.TakeAll() {
		m := l.ContextMap()
		fmt.Fprintf(&b, "%s %s %v %v", l.Level, l.Message, m["verb"], m["status"])
		if name, ok := m["name"]; ok {
			fmt.Fprintf(&b, " name=%v", name)
		}
		if count, ok := m["count"]; ok {
			fmt.Fprintf(&b, " count=%v first=+%s last=+%s", count, m["first"].(time.Time).Sub(start), m["last"].(time.Time).Sub(start))
		}
		fmt.Fprintf(&b, " %v\n", m["error"])
	}
	return b.String()
}

func want(t *testing.T, when string, lines *observer.ObservedLogs, want ...string) {
	t.Helper()
	if got, want := text(lines), strings.Join(append(want, ""), "\n"); got != want {
		t.Errorf("%s:\n%swant\n%s", when, got, want)
	}
}

func TestTheFirstLineIsWrittenAndLaterOnesAreCounted(t *testing.T) {
	log, now, lines := newLog(zap.InfoLevel)
	log.Write(line("get"))
	want(t, "the first", lines, "info request get 503 name=a down")
	for range 30 {
		now.SetTime(now.Now().Add(time.Second))
		log.Write(line("get"))
	}
	log.Write(line("update"))
	want(t, "another kind", lines, "info request update 503 name=a down")
	now.SetTime(now.Now().Add(10 * time.Second))
	log.End()
	want(t, "at the end", lines, "info request get 503 count=31 first=+0s last=+30s down")
	log.Write(line("update"))
	want(t, "the next outage", lines, "info request update 503 name=a down")
	log.End()
	log.Flush()
	want(t, "nothing more to tell", lines)
}

func TestSummariesComeLessAndLessOften(t *testing.T) {
	log, now, lines := newLog(zap.InfoLevel)
	var at []string
	for d := time.Duration(0); d < 7*24*time.Hour; d += 2 * time.Second {
		now.SetTime(start.Add(d))
		log.Write(line("update"))
		for range lines.TakeAll() {
			at = append(at, d.String())
		}
	}
	log.Flush()
	if got := strings.Join(at, " "); got != "0s 1h0m0s 3h0m0s 7h0m0s 15h0m0s 31h0m0s 55h0m0s 79h0m0s 103h0m0s 127h0m0s 151h0m0s" {
		t.Error(got)
	}
	want(t, "at the end of the process", lines, "info request update 503 count=302400 first=+0s last=+167h59m58s down")
}

func TestASummaryComesWithoutFurtherLines(t *testing.T) {
	log, now, lines := newLog(zap.InfoLevel)
	log.Write(line("get"))
	log.Write(line("get"))
	lines.TakeAll()
	now.SetTime(start.Add(firstInterval - 1))
	log.Due()
	want(t, "before it is due", lines)
	now.SetTime(start.Add(firstInterval))
	log.Due()
	want(t, "when it is due", lines, "info request get 503 count=2 first=+0s last=+0s down")
	now.SetTime(start.Add(3 * firstInterval))
	log.Due()
	want(t, "nothing has come", lines)
	if len(log.kinds) != 0 {
		t.Error("it is not forgotten")
	}
}

func TestALineAfterAPauseIsAFirstOne(t *testing.T) {
	log, now, lines := newLog(zap.InfoLevel)
	log.Write(line("get"))
	for d := time.Duration(0); d <= 20*time.Hour; d += time.Minute {
		now.SetTime(start.Add(d))
		log.Write(line("get"))
	}
	lines.TakeAll()
	now.SetTime(start.Add(20*time.Hour + quiet))
	log.Write(line("get"))
	want(t, "after an hour", lines, "info request get 503 count=1202 first=+0s last=+20h0m0s down", "info request get 503 name=a down")
}

func TestALinkThatFlapsWritesALineEachTenSeconds(t *testing.T) {
	log, now, lines := newLog(zap.InfoLevel)
	const seconds = 3600
	n, counted := 0, int64(0)
	for i := range seconds {
		now.SetTime(start.Add(time.Duration(i) * time.Second))
		log.Write(line("get"))
		log.End()
	}
	log.Flush()
	for _, l := range lines.TakeAll() {
		n++
		if count, ok := l.ContextMap()["count"]; ok {
			counted += count.(int64) - 1 // the first has a line of its own
		}
		counted += map[bool]int64{true: 0, false: 1}[l.ContextMap()["count"] != nil]
	}
	if n > 2*seconds/10+2 || counted != seconds {
		t.Errorf("%d lines that tell of %d", n, counted)
	}
}

func TestKindsBeyondTheBoundAreCountedTogether(t *testing.T) {
	log, now, lines := newLog(zap.InfoLevel)
	for range 3 {
		for i := range 10 * maxKinds {
			log.Write(line(fmt.Sprint(i)))
		}
	}
	if n := len(lines.TakeAll()); n != maxKinds+1 || len(log.kinds) != maxKinds+1 {
		t.Errorf("%d lines, %d kinds", n, len(log.kinds))
	}
	now.SetTime(start.Add(time.Minute))
	log.End()
	total, others := int64(0), 0
	for _, l := range lines.TakeAll() {
		m := l.ContextMap()
		total += m["count"].(int64)
		if m["verb"] == nil {
			others++
		}
	}
	if total != 30*maxKinds || others != 1 {
		t.Errorf("summaries of %d lines, %d of them of many kinds", total, others)
	}
}

func TestAtDebugEveryLineIsWritten(t *testing.T) {
	log, _, lines := newLog(zap.DebugLevel)
	log.Write(line("get"))
	log.Write(line("get"))
	want(t, "both", lines, "info request get 503 name=a down", "debug request get 503 name=a down")
}

func TestLinesOfAnotherLevelOrMessageAreApart(t *testing.T) {
	log, _, lines := newLog(zap.InfoLevel)
	warn, other := line("get"), line("get")
	warn.Level, other.Message, other.Err = zap.WarnLevel, "other", nil
	log.Write(line("get"))
	log.Write(warn)
	log.Write(other)
	want(t, "all", lines, "info request get 503 name=a down", "warn request get 503 name=a down", "info other get 503 name=a <nil>")
}

func TestManyGoroutinesMayWrite(t *testing.T) {
	log, _, lines := newLog(zap.InfoLevel)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				log.Write(line("get"))
				log.Due()
			}
		})
	}
	wg.Wait()
	log.Flush()
	want(t, "all", lines, "info request get 503 name=a down", "info request get 503 count=800 first=+0s last=+0s down")
}
