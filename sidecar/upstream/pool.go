package upstream

import (
	"errors"
	"net/http"
	"slices"

	"golang.org/x/net/http2"
)

const (
	// receiveBuffer is how many bytes of one response wait for a slow client.
	receiveBuffer = 1 << 20
	// maxDials is how many connections one request may wait for. More than one is needed when the
	// API server allows few streams on a connection.
	maxDials = 8
)

// http2Conn is a connection of golang.org/x/net/http2. Its client is deprecated in favour of
// net/http, whose ClientConn cannot send a PING when it is asked to: that is why it is used here.
type http2Conn = http2.ClientConn //nolint:staticcheck

// useHTTP2 makes the HTTP/2 client. Only through an http.Transport can it be told how much memory a
// stream may take.
//
//nolint:staticcheck // see http2Conn
func (a *address) useHTTP2() error {
	transport, err := http2.ConfigureTransports(&http.Transport{
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: receiveBuffer}, IdleConnTimeout: idleConnTimeout,
	})
	if err != nil {
		return err
	}
	transport.ConnPool = pool{a}
	a.overHTTP2, a.onConn = transport, transport.NewClientConn
	return nil
}

// pool lets the HTTP/2 transport use the connections of an address.
type pool struct{ *address }

// errUnused is for API servers, or gateways before them, that end each connection at once.
var errUnused = errors.New("it closes connections before they can be used")

// GetClientConn gives the connection for a request, which may have to wait for it. The transport
// calls it again for a request that the API server says it has not begun.
func (p pool) GetClientConn(r *http.Request, _ string) (*http2Conn, error) {
	a := p.address
	x := attemptOf(r.Context())
	x.sent.Store(false)
	for range maxDials {
		a.mu.Lock()
		for _, c := range slices.Backward(a.conns) {
			if c.usable() && c.http2.ReserveNewRequest() {
				a.mu.Unlock()
				x.on(c)
				return c.http2, nil
			}
		}
		if a.closeReason != nil {
			a.mu.Unlock()
			return nil, &dialError{a.closeReason}
		}
		if a.hasJustFailed() {
			defer a.mu.Unlock()
			return nil, &dialError{a.lastErr}
		}
		d := a.connect()
		a.mu.Unlock()
		select {
		case <-d.done:
		case <-r.Context().Done():
			return nil, &dialError{r.Context().Err()}
		}
		switch {
		case d.err != nil:
			return nil, &dialError{d.err}
		case a.http1.Load():
			return nil, errHTTP1
		}
	}
	return nil, &dialError{errUnused}
}

// hasJustFailed tells that no new connection should be tried yet for a request. While an old
// connection keeps the link from being offline, as after a GOAWAY, each request would try one. The
// lock is held.
func (a *address) hasJustFailed() bool {
	return a.dialing == nil && !a.failed.IsZero() && a.clock.Since(a.tried) < a.wakeInterval() &&
		slices.ContainsFunc(a.conns, (*conn).open)
}

// MarkDead is part of the interface; a connection that is closed takes itself out.
func (pool) MarkDead(*http2Conn) {}

// The API server has chosen another protocol than the one of the transport.
var (
	errHTTP1 = errors.New("it speaks HTTP/1.1")
	errHTTP2 = errors.New("it speaks HTTP/2")
)
