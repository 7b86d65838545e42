package proxy

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// exchange is one request and its response while they are in flight.
type exchange struct {
	server *Server
	run    *run
	ctx    context.Context
	out    writer
	id     RequestID
	audit  string  // upstream's id of it; empty if it has not answered
	body   *body   // of upstream's response; nil if it has none
	upload *upload // of an HTTP/1.1 client; nil if it has none
	err    error
	long   bool // it has no grace; see Options.LongRunning
	abort  bool // the response cannot be completed

	url       *url.URL // of the request for the Transport
	forwarded forwarded
	interim   interimResponses
	trace     httptrace.ClientTrace
	response  http.Response // for goproxy, see answer
}

// shutdownError is the error of a long-running request without a response header when the server
// stops.
type shutdownError struct{}

func (shutdownError) Error() string { return errShutdown.Error() }

func (shutdownError) Status() metav1.Status {
	return failure(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, errShutdown.Error())
}

// handle is the handler of the reverse proxy's port. It refuses requests meant for a forward proxy,
// and dispatches upgrades and ordinary requests.
func (s *Server) handle(run *run, w http.ResponseWriter, r *http.Request) {
	x := &exchange{server: s, run: run, ctx: r.Context(), out: writer{ResponseWriter: w}, id: requestID(r.Header)}
	if s.options.Context != nil {
		x.ctx = s.options.Context(x.ctx)
	}
	if x.long = s.options.LongRunning(r); !x.long {
		growStack(0)
	}
	protocol := upgradeProtocol(r)
	defer x.observe(r, protocol, time.Now()) // also when the handler aborts
	refusal := refuse(r)
	switch {
	case refusal != nil:
		x.err = fmt.Errorf("refused: %s", refusal.Message)
		writeStatus(&x.out, *refusal, x.id.String())
	case protocol != "":
		x.switchProtocol(r)
	default:
		x.forward(r)
	}
}

// refuse keeps goproxy from acting as a forward proxy: the request target must be a path
// (RFC 9112 §3.2.1). The Host field needs no check, because no code uses it.
func refuse(r *http.Request) *metav1.Status {
	switch {
	case r.Method == http.MethodConnect:
		status := failure(http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed,
			"CONNECT is not served here: this port is the Kubernetes API, not a proxy")
		return &status
	case r.URL.IsAbs() || r.URL.Host != "":
		status := failure(http.StatusBadRequest, metav1.StatusReasonBadRequest,
			"the request target must be a path, not a URL: this port is the Kubernetes API, not a proxy")
		return &status
	case len(r.URL.Path) == 0 || r.URL.Path[0] != '/':
		status := failure(http.StatusBadRequest, metav1.StatusReasonBadRequest,
			"the request target must be a path that begins with a slash")
		return &status
	}
	return nil
}

func (x *exchange) observe(r *http.Request, protocol string, start time.Time) {
	if x.server.options.Observe == nil {
		return
	}
	x.server.options.Observe(Exchange{
		Context:   x.ctx,
		ID:        &x.id,
		AuditID:   x.audit,
		Method:    r.Method,
		Path:      r.URL.Path,
		Query:     r.URL.RawQuery,
		Proto:     r.Proto,
		UserAgent: r.UserAgent(),
		Upgrade:   protocol,
		Status:    max(x.out.status, 0),
		Bytes:     x.out.bytes,
		Start:     start,
		Duration:  time.Since(start),
		Err:       x.err,
	})
}
