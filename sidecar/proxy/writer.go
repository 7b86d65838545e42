package proxy

import (
	"bufio"
	"net"
	"net/http"
)

// aborted is the status of a writer after which nothing may be written.
const aborted = -1

// writer is the client's side of an exchange. It counts bytes, and flushes streams: a response
// without Content-Length may be a watch, whose header and events the client needs at once and not
// when a buffer is full. (goproxy flushes only text/event-stream.)
type writer struct {
	http.ResponseWriter
	stream bool // flush the header and every write; decided when the response's header is known
	status int
	bytes  int64
	conn   func(net.Conn) // called with a hijacked connection, unless nil
}

// WriteHeader is called once with the final status, and before that with each 1xx.
func (w *writer) WriteHeader(status int) {
	if status >= http.StatusOK {
		if w.status != 0 {
			return
		}
		w.status = status
		if h := w.Header(); h["Content-Type"] == nil {
			h["Content-Type"] = nil // otherwise net/http would sniff one that upstream did not send
		}
	}
	w.ResponseWriter.WriteHeader(status)
	if w.stream && status >= http.StatusOK {
		w.Flush() // the next write and the request's context report an error
	}
}

// Write returns the error of a failed flush, so that a copy to a disconnected client ends at once.
func (w *writer) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	if err == nil && w.stream {
		err = w.FlushError()
	}
	return n, err
}

// Flush implements http.Flusher.
func (w *writer) Flush() { _ = w.FlushError() }

// FlushError implements what http.ResponseController looks for.
func (w *writer) FlushError() error {
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack is called for a 101, whose connection then bypasses this writer.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.status = http.StatusSwitchingProtocols
		if w.conn != nil {
			w.conn(conn)
		}
	}
	return conn, buffered, err
}

// Unwrap lets http.ResponseController reach the rest.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
