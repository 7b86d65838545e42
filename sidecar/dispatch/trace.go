package dispatch

import (
	"context"

	"rockpool.dev/sidecar/api/request"
)

// Trace says how a request was answered, for the log. The Dispatcher fills it in. It is to be
// read after the answer, by the same goroutine.
type Trace struct {
	Info    *request.Info // not to be changed; the zero Info until the Dispatcher has the request
	Offline bool          // answered without the API server
}

// unknown is the Info of requests that no Dispatcher has.
var unknown = &request.Info{}

type traceKey struct{}

// WithTrace gives a request's context a Trace to be filled in.
func WithTrace(ctx context.Context) context.Context {
	return &traced{Context: ctx, trace: Trace{Info: unknown}}
}

// traced is a context with a Trace.
type traced struct {
	context.Context
	trace Trace
}

// Value gives the Trace to traceOf.
func (t *traced) Value(key any) any {
	if key == (traceKey{}) {
		return &t.trace
	}
	return t.Context.Value(key)
}

// TraceOf gives the Trace of a request's context, the zero one if it has none.
func TraceOf(ctx context.Context) Trace { return *traceOf(ctx) }

func traceOf(ctx context.Context) *Trace {
	if trace, ok := ctx.Value(traceKey{}).(*Trace); ok {
		return trace
	}
	return &Trace{Info: unknown}
}
