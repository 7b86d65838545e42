package status

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	// maxErrors bounds the distinct errors that are kept, and maxErrorLength each of them, in bytes.
	maxErrors      = 20
	maxErrorLength = 500
)

// Error is an error that the sidecar has logged, or a request that it has refused.
type Error struct {
	At    time.Time `json:"at"` // the last time
	Count int       `json:"count"`
	Text  string    `json:"text"`
}

// Recent keeps the last distinct errors. The zero value is ready.
type Recent struct {
	mu  sync.Mutex
	all []Error // the latest one last
}

// Note keeps an error.
func (r *Recent) Note(at time.Time, text string) {
	if len(text) > maxErrorLength {
		text = text[:maxErrorLength] + "…"
	}
	text = strings.ToValidUTF8(text, "?")
	r.mu.Lock()
	defer r.mu.Unlock()
	e := Error{At: at, Count: 1, Text: text}
	if i := slices.IndexFunc(r.all, func(e Error) bool { return e.Text == text }); i >= 0 {
		e.Count += r.all[i].Count
		r.all = slices.Delete(r.all, i, i+1)
	}
	if len(r.all) == maxErrors {
		r.all = slices.Delete(r.all, 0, 1)
	}
	r.all = append(r.all, e)
}

// Errors returns the errors, the latest one first.
func (r *Recent) Errors() []Error {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := slices.Clone(r.all)
	slices.SortStableFunc(all, func(a, b Error) int { return cmp.Or(b.At.Compare(a.At)) })
	return all
}

// Logger returns a logger whose warnings and errors are also kept.
func (r *Recent) Logger(log *zap.Logger) *zap.Logger {
	return log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewTee(core, &recentCore{r, nil})
	}))
}

// recentCore is a zapcore.Core that keeps the message of an entry and its error.
type recentCore struct {
	*Recent
	fields []zapcore.Field
}

func (*recentCore) Enabled(level zapcore.Level) bool { return level >= zapcore.WarnLevel }

func (c *recentCore) With(fields []zapcore.Field) zapcore.Core {
	return &recentCore{c.Recent, slices.Concat(c.fields, fields)}
}

func (c *recentCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

func (c *recentCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	text := e.Message
	for _, f := range slices.Concat(c.fields, fields) {
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			text += ": " + err.Error()
		}
	}
	c.Note(e.Time, text)
	return nil
}

func (*recentCore) Sync() error { return nil }
