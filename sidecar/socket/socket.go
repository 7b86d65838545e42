package socket

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/websocket"

	"rockpool.dev/sidecar/api/wire"
)

// closeTimeout bounds the sending of the last messages to a client that reads no more.
const closeTimeout = 5 * time.Second

var errRefused = errors.New("the handshake of the WebSocket was refused")

// Handler returns a handler that ends the WebSockets of watches, and has next answer the watch as
// an ordinary request. All other requests it hands on unchanged.
func Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handshake, watch, ok := open(r)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		s := &socket{ResponseWriter: w, handshake: handshake, cancel: cancel, ended: make(chan struct{})}
		defer s.finish() // also when next panics
		next.ServeHTTP(s, watch.WithContext(ctx))
		s.complete = true
	})
}

// socket is the writer of the answer to a watch. It switches to the WebSocket protocol when the
// answer is a stream of events, and makes a message of each.
type socket struct {
	http.ResponseWriter
	handshake *http.Request
	cancel    context.CancelFunc // of the watch
	complete  bool               // the watch has ended, and has not broken off

	conn  net.Conn        // nil: the answer is no stream of events
	ws    *websocket.Conn // nil: the handshake was refused
	split wire.FrameSplitter
	stop  func() bool   // of the connection's end with the request's context
	ended chan struct{} // closed when nothing is read from the connection any more
}

// WriteHeader opens the socket if the answer is a stream of events.
func (s *socket) WriteHeader(status int) {
	format := wire.FormatOf(s.Header().Get("Content-Type"))
	if status != http.StatusOK || format == nil {
		s.ResponseWriter.WriteHeader(status)
		return
	}
	conn, buffered, err := http.NewResponseController(s.ResponseWriter).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // there is nobody to answer
	}
	s.conn, s.stop = conn, context.AfterFunc(s.handshake.Context(), func() { _ = conn.Close() })
	opened := make(chan *websocket.Conn)
	go s.read(opened, &hijacked{s.ResponseWriter, conn, buffered})
	select {
	case s.ws = <-opened:
	case <-s.ended:
		return
	}
	if s.ws.PayloadType = websocket.TextFrame; format != wire.JSON {
		s.ws.PayloadType = websocket.BinaryFrame
	}
	s.split = format.NewFrames(func(raw []byte) error {
		if format == wire.JSON {
			raw = append(raw[:len(raw):len(raw)], '\n') // a copy
		}
		_, err := s.ws.Write(raw)
		return err
	})
}

// read shakes hands, then reads what the client sends, for its pings and its close. It ends the
// watch when the client leaves.
func (s *socket) read(opened chan<- *websocket.Conn, w http.ResponseWriter) {
	defer close(s.ended)
	defer s.cancel()
	websocket.Handler(func(ws *websocket.Conn) {
		opened <- ws
		_, _ = io.Copy(io.Discard, ws) // messages of the client mean nothing
		closeSocket(ws)
	}).ServeHTTP(w, s.handshake)
}

// Write sends the events that are complete.
func (s *socket) Write(p []byte) (int, error) {
	switch {
	case s.conn == nil:
		return s.ResponseWriter.Write(p)
	case s.ws == nil:
		return 0, errRefused
	}
	return s.split.Write(p)
}

// FlushError implements what http.ResponseController looks for. Messages are sent at once.
func (s *socket) FlushError() error {
	switch {
	case s.conn == nil:
		return http.NewResponseController(s.ResponseWriter).Flush()
	case s.ws == nil:
		return errRefused
	}
	return nil
}

// finish ends the socket: with a close message if the watch has ended, without one if it has broken
// off.
func (s *socket) finish() {
	s.cancel()
	if s.conn == nil {
		return
	}
	defer s.stop()
	if s.complete && s.ws != nil {
		closeSocket(s.ws)
	}
	_ = s.conn.Close()
	<-s.ended
}

// closeSocket sends the close message and closes the connection. A write that waits for the client
// ends with an error.
func closeSocket(ws *websocket.Conn) {
	_ = ws.SetWriteDeadline(time.Now().Add(closeTimeout))
	_ = ws.Close()
}

// hijacked is a writer whose connection was taken over already.
type hijacked struct {
	http.ResponseWriter
	conn     net.Conn
	buffered *bufio.ReadWriter
}

func (h *hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) { return h.conn, h.buffered, nil }
