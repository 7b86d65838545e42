// Package tally keeps the log short while the same thing happens again and again: a program that
// retries every 2 s for a week without a link would write 302,400 lines. Of all lines that are
// alike, the first is written at once. Later ones are counted, and summaries have the count.
package tally

import (
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/utils/clock"
)

const (
	// firstInterval is how long after the first line a summary follows while the link stays as it
	// is. The time doubles with each summary, up to longestInterval: about ten a week.
	firstInterval   = time.Hour
	longestInterval = 24 * time.Hour
	// quiet is how long a kind of lines must pause for its next line to be a first one again.
	quiet = time.Hour
	// minGap is the least time between two lines that are alike, also when the link flaps.
	minGap = 10 * time.Second
	// maxKinds bounds the kinds of lines that are counted apart. All others are counted together.
	maxKinds = 256
)

// Line is a line for the log.
type Line struct {
	Level   zapcore.Level
	Message string
	// Kind are the fields in which lines are alike, besides level and message. They are strings
	// and integers.
	Kind []zap.Field
	// Fields are those of this line alone. A summary has of them only the latest error.
	Fields []zap.Field
	Err    error // nil: none
}

// kind names the lines that are counted with this one.
func (l *Line) kind() string {
	var b strings.Builder
	b.WriteString(l.Level.String() + "\x00" + l.Message)
	for i := range l.Kind {
		b.WriteString("\x00" + l.Kind[i].Key + "\x00" + l.Kind[i].String + "\x00" + strconv.FormatInt(l.Kind[i].Integer, 10))
	}
	return b.String()
}

// fields are the fields of the line itself.
func (l *Line) fields() []zap.Field {
	fields := append(append([]zap.Field{}, l.Kind...), l.Fields...)
	if l.Err != nil {
		fields = append(fields, zap.Error(l.Err))
	}
	return fields
}

// others is the kind of the lines beyond maxKinds.
const others = ""

// Log writes lines and summaries. It has no goroutine: summaries that are due are written by the
// next call of any method. Its methods may be called from several goroutines.
type Log struct {
	log   *zap.Logger
	clock clock.PassiveClock

	mu    sync.Mutex
	kinds map[string]*count
	next  time.Time // when the first summary is due
}

// New returns a Log that has counted nothing.
func New(log *zap.Logger, c clock.PassiveClock) *Log {
	return &Log{log: log, clock: c, kinds: map[string]*count{}}
}

// count is what is known of the lines of one kind.
type count struct {
	level       zapcore.Level
	message     string
	kind        []zap.Field
	n, written  int // lines so far, and those of them that the log tells of
	first, last time.Time
	err         error     // of the last line that had one
	at          time.Time // of the latest line or summary in the log
	wait        time.Duration
	due         time.Time // of the next summary
	ended       bool      // after that the count begins again
}

// Write writes a line if it is the first of its kind, and counts it otherwise. At debug level
// every line is written.
func (t *Log) Write(line Line) {
	now := t.clock.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.summarize(now)
	level := zapcore.DebugLevel
	c := t.count(&line, now)
	if c.n++; c.n == 1 {
		level = line.Level
		c.first, c.at, c.written = now, now, 1
		c.due = now.Add(c.wait)
		t.dueAt(c.due)
	}
	c.last = now
	if line.Err != nil {
		c.err = line.Err
	}
	if entry := t.log.Check(level, line.Message); entry != nil {
		entry.Write(line.fields()...)
	}
}

// count returns the count of the lines like this one.
func (t *Log) count(line *Line, now time.Time) *count {
	kind, fields, message := line.kind(), line.Kind, line.Message
	if t.kinds[kind] == nil && len(t.kinds) >= maxKinds {
		kind, fields, message = others, nil, "further lines of many kinds"
	}
	c := t.kinds[kind]
	if c != nil && now.Sub(c.last) >= quiet {
		t.summary(c)
		c = nil
	}
	if c == nil {
		c = &count{level: line.Level, message: message, kind: fields, wait: firstInterval}
		t.kinds[kind] = c
	}
	c.level = max(c.level, line.Level)
	return c
}

// Due writes the summaries that are due.
func (t *Log) Due() {
	now := t.clock.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.summarize(now)
}

// End says that the cause of the lines is over, such as an outage. It writes the summaries, and
// the next line of each kind is a first one again.
func (t *Log) End() {
	now := t.clock.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.kinds {
		c.ended = true
		if due := c.at.Add(minGap); due.Before(c.due) {
			c.due = due
			t.dueAt(due)
		}
	}
	t.summarize(now)
}

// Flush writes all summaries, before the process ends.
func (t *Log) Flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.kinds {
		t.summary(c)
	}
	clear(t.kinds)
}

func (t *Log) dueAt(at time.Time) {
	if t.next.IsZero() || at.Before(t.next) {
		t.next = at
	}
}

// summarize writes the summaries that are due, and forgets the kinds of which nothing new has
// come. The lock is held.
func (t *Log) summarize(now time.Time) {
	if t.next.IsZero() || now.Before(t.next) {
		return
	}
	t.next = time.Time{}
	for kind, c := range t.kinds {
		if now.Before(c.due) {
			t.dueAt(c.due)
			continue
		}
		if news := t.summary(c); !news || c.ended {
			delete(t.kinds, kind)
			continue
		}
		c.wait = min(2*c.wait, longestInterval)
		c.at, c.due = now, now.Add(c.wait)
		t.dueAt(c.due)
	}
}

// summary writes a summary if the log does not tell of all lines yet.
func (t *Log) summary(c *count) (news bool) {
	if c.n == c.written {
		return false
	}
	c.written = c.n
	if entry := t.log.Check(c.level, c.message); entry != nil {
		fields := append(append([]zap.Field{}, c.kind...),
			zap.Int("count", c.n), zap.Time("first", c.first), zap.Time("last", c.last))
		if c.err != nil {
			fields = append(fields, zap.NamedError("error", c.err))
		}
		entry.Write(fields...)
	}
	return true
}
