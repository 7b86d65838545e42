package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"sync"

	"github.com/elazarl/goproxy"
	"golang.org/x/net/http/httpguts"
)

// placeholderHost fills URL.Host and Host, because goproxy takes only requests with an absolute
// URL. Every API server's certificate has this name. The Transport replaces it by the real address.
const placeholderHost = "kubernetes.default.svc"

type exchangeKey struct{}

// engineURL is the URL that goproxy sees of each request. It prints the URL several times for a log
// that it does not write. Nobody changes it.
var engineURL = &url.URL{Scheme: "https", Host: placeholderHost}

// forwarded is the context of a request that is forwarded. It gives its exchange to the engine.
type forwarded struct {
	context.Context
	exchange *exchange
}

// Value gives the exchange.
func (f *forwarded) Value(key any) any {
	if key == (exchangeKey{}) {
		return f.exchange
	}
	return f.Context.Value(key)
}

// newEngine returns a goproxy that only hands requests to the server's Transport. forward calls it
// directly with an absolute URL, so its NonproxyHandler is never used. Its own transport refuses to
// dial, in case a request ever bypasses the RoundTripper.
func newEngine(s *Server) *goproxy.ProxyHttpServer {
	engine := goproxy.NewProxyHttpServer()
	engine.Logger = engineLog{s.logger}
	engine.Tr = &http.Transport{Proxy: nil, DialContext: refuseDial}
	engine.ConnectDial = nil             // NewProxyHttpServer takes it from the environment
	engine.KeepAcceptEncoding = true     // forward decides about it
	engine.KeepDestinationHeaders = true // answer puts them there
	roundTripper := goproxy.RoundTripperFunc(func(r *http.Request, _ *goproxy.ProxyCtx) (*http.Response, error) {
		return r.Context().Value(exchangeKey{}).(*exchange).roundTrip(r)
	})
	engine.OnRequest().DoFunc(func(r *http.Request, ctx *goproxy.ProxyCtx) (*http.Request, *http.Response) {
		ctx.RoundTripper = roundTripper
		return r, nil
	})
	return engine
}

func refuseDial(context.Context, string, string) (net.Conn, error) {
	return nil, errors.New("proxy: the engine must not dial")
}

// forward sends an ordinary request through goproxy to the Transport.
func (x *exchange) forward(r *http.Request) {
	ctx := x.ctx
	if x.long {
		until, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(x.run.stopping, func() { cancel(errShutdown) })()
		ctx = until
	}
	x.interim.w = &x.out
	x.trace.Got1xxResponse = x.interim.pass
	x.forwarded = forwarded{ctx, x}
	out := r.WithContext(httptrace.WithClientTrace(&x.forwarded, &x.trace))
	// URL and Header are changed in place, which saves their copies: net/http does not look at them
	// once it has called the handler.
	x.url = r.URL
	x.url.Scheme, x.url.Host, out.Host = "https", placeholderHost, placeholderHost
	dropHopByHop(out.Header)
	if x.mayBeCompressed(out) {
		out.Header["Accept-Encoding"] = acceptGzip
	} else {
		delete(out.Header, "Accept-Encoding")
	}
	keepUserAgentAbsent(out.Header)
	out.URL = engineURL
	out.TransferEncoding = nil
	out.Close = false // the client asked for it on its own connection, not on upstream's
	if r.ContentLength == 0 {
		// HTTP/2 requests with any other body are not retried on a new connection
		// (golang.org/issue/16036).
		out.Body = http.NoBody
	} else {
		up := &upload{source: r.Body}
		defer up.Close() // the transport may still read after it has answered
		out.Body = up
		if r.ProtoMajor == 1 {
			x.upload = up
		}
	}

	x.server.engine.ServeHTTP(&x.out, out)
	x.finish(ctx)
}

// acceptGzip is a value of Accept-Encoding, which nobody changes.
var acceptGzip = []string{"gzip"}

// mayBeCompressed reports whether the client asks for gzip and may get it. Part of an answer may not
// be: its range counts compressed bytes.
func (x *exchange) mayBeCompressed(r *http.Request) bool {
	return x.server.options.Compressed != nil && r.Method == http.MethodGet && r.Header["Range"] == nil &&
		httpguts.HeaderValuesContainsToken(r.Header["Accept-Encoding"], "gzip") && x.server.options.Compressed(r)
}

// finish makes truncation visible to the client: if the response is incomplete, net/http resets the
// HTTP/2 stream, or closes the HTTP/1.1 connection before the end of the body. A watch that ends
// because the server stops is complete. That the client has ended its watch is no error.
func (x *exchange) finish(ctx context.Context) {
	if x.body != nil {
		switch failed := x.body.readErr != nil || x.body.writeErr != nil; {
		case failed && x.long && x.ctx.Err() != nil:
			x.abort = true
		case x.body.writeErr != nil:
			x.err, x.abort = fmt.Errorf("write to client: %w", x.body.writeErr), true
		case x.body.readErr != nil && errors.Is(context.Cause(ctx), errShutdown):
			x.err = errShutdown
		case x.body.readErr != nil:
			x.err, x.abort = fmt.Errorf("read from upstream: %w", x.body.readErr), true
		}
	}
	if x.abort {
		panic(http.ErrAbortHandler)
	}
}

// roundTrip is called by goproxy. It never returns an error, because goproxy would send the error
// to the client as text.
func (x *exchange) roundTrip(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	r.URL = x.url
	response, err := x.server.options.Transport.RoundTrip(r)
	x.interim.done()

	switch {
	case err == nil && response.StatusCode < http.StatusOK:
		_ = response.Body.Close()
		err = fmt.Errorf("unexpected status %d from upstream", response.StatusCode)
	case err != nil && errors.Is(context.Cause(ctx), errShutdown):
		err = shutdownError{}
	case err != nil && errors.Is(ctx.Err(), context.Canceled):
		// The client has disconnected or the grace is over: nobody reads the response.
		x.err, x.abort = err, true
		x.out.status = aborted
		return &http.Response{
			StatusCode: http.StatusBadGateway, Header: http.Header{}, Body: http.NoBody, Request: r,
		}, nil
	}
	if err == nil {
		x.audit = response.Header.Get(auditID)
	} else {
		x.err = err
		response = statusResponse(r, statusOf(err), x.id.String(), x.server.options.Pretty != nil && x.server.options.Pretty(r))
	}
	x.prepareResponse(r, response)
	if err != nil && x.upload.pending() {
		// Otherwise net/http's server waits for the rest of the body before it answers, and the client
		// may wait for the answer.
		response.Header.Set("Connection", "close")
	}
	return x.answer(response), nil
}

// answer moves the header of a response to the client's side, and gives goproxy the rest, because
// goproxy would copy each value.
func (x *exchange) answer(response *http.Response) *http.Response {
	header := x.out.Header()
	clear(header)
	maps.Copy(header, response.Header)
	x.response = *response
	x.response.Header = nil
	return &x.response
}

// prepareResponse prepares a response for goproxy.
func (x *exchange) prepareResponse(r *http.Request, response *http.Response) {
	if response.Header == nil {
		response.Header = http.Header{}
	}
	dropHopByHop(response.Header)
	delete(response.Header, "Te")
	bodiless := r.Method == http.MethodHead ||
		response.StatusCode == http.StatusNoContent || response.StatusCode == http.StatusNotModified
	switch {
	case response.Body == nil:
		response.Body = http.NoBody
	case bodiless && response.Body != http.NoBody:
		// net/http refuses to write a body here, which would look like a client that disconnected.
		_ = response.Body.Close()
		response.Body = http.NoBody
	}
	if response.Body != http.NoBody {
		x.body = &body{source: response.Body, from: response, to: &x.response}
		response.Body = x.body
		x.out.stream = response.Header.Get("Content-Length") == "" && !x.server.options.Buffered(r)
	}
}

// interimResponses forwards 1xx responses until the final one arrives (RFC 9110 §15.2). It skips
// 100, which net/http sends itself when the body is first read.
type interimResponses struct {
	mu    sync.Mutex
	ended bool
	w     http.ResponseWriter
}

func (i *interimResponses) pass(status int, header textproto.MIMEHeader) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ended || status == http.StatusContinue {
		return nil
	}
	h := i.w.Header()
	for name, values := range header {
		h[name] = values
	}
	dropHopByHop(h)
	i.w.WriteHeader(status)
	clear(h)
	return nil
}

func (i *interimResponses) done() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ended = true
}
