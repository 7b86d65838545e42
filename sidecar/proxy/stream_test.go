package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"rockpool.dev/tests/eventually"
)

func TestWatchEventsAreForwardedOneByOne(t *testing.T) {
	for _, p := range protocols {
		t.Run("with "+p.name, func(t *testing.T) {
			next := make(chan string)
			r := start(t, p.upstream, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusOK)
				w.(http.Flusher).Flush()
				for event := range next {
					_, _ = io.WriteString(w, event)
					w.(http.Flusher).Flush()
				}
			}, nil)
			answered := make(chan *http.Response, 1)
			go func() {
				response, err := r.client(p.client).Do(r.request(http.MethodGet, "/api/v1/pods?watch=true", nil))
				if err != nil {
					t.Error(err)
				}
				answered <- response
			}()
			// The header must arrive before the first event.
			response := eventually.Receive(t, "the header", answered)
			defer response.Body.Close()
			lines := make(chan string)
			go func() {
				defer close(lines)
				for scanner := bufio.NewScanner(response.Body); scanner.Scan(); {
					lines <- scanner.Text()
				}
			}()
			for i := range 3 {
				event := fmt.Sprintf(`{"type":"ADDED","object":%d}`, i)
				next <- event + "\n"
				if got := eventually.Receive(t, "event", lines); got != event {
					t.Errorf("event %d is %q", i, got)
				}
			}
			close(next)
			if _, more := <-lines; more {
				t.Error("bytes follow the last event")
			}
		})
	}
}

func TestTruncationIsVisible(t *testing.T) {
	bodies := []struct {
		name   string
		length string
	}{
		{"a stream", ""},
		{"a body of announced length", "100"},
	}
	for _, p := range protocols {
		for _, b := range bodies {
			t.Run("of "+b.name+" with "+p.name, func(t *testing.T) {
				r := start(t, p.upstream, func(w http.ResponseWriter, _ *http.Request) {
					if b.length != "" {
						w.Header().Set("Content-Length", b.length)
					}
					_, _ = io.WriteString(w, "the first half")
					w.(http.Flusher).Flush()
					panic(http.ErrAbortHandler)
				}, nil)
				response, err := r.client(p.client).Do(r.request(http.MethodGet, "/api/v1/pods", nil))
				if err == nil {
					defer response.Body.Close()
					var data []byte
					if data, err = io.ReadAll(response.Body); err == nil {
						t.Fatalf("a truncated response looks complete: %q", data)
					}
				}
				if x := r.exchange(0); x.Err == nil || !strings.Contains(x.Err.Error(), "read from upstream") {
					t.Errorf("observed error is %v", x.Err)
				}
			})
		}
	}
}

func TestClientCancelReachesUpstream(t *testing.T) {
	for _, p := range protocols {
		for _, headers := range []bool{false, true} {
			t.Run(fmt.Sprintf("with %s, header sent: %t", p.name, headers), func(t *testing.T) {
				started, answered, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
				r := start(t, p.upstream, func(w http.ResponseWriter, req *http.Request) {
					defer close(ended)
					if headers {
						w.(http.Flusher).Flush()
					}
					close(started)
					<-req.Context().Done()
					// Otherwise the response might end before the proxy aborts it.
					panic(http.ErrAbortHandler)
				}, nil)
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				done := make(chan error, 1)
				go func() {
					response, err := r.client(p.client).Do(r.request(http.MethodGet, "/api/v1/pods?watch=1", nil).WithContext(ctx))
					if err == nil {
						close(answered)
						_, err = io.Copy(io.Discard, response.Body)
						_ = response.Body.Close()
					}
					done <- err
				}()
				eventually.Receive(t, "upstream to get the request", started)
				if headers {
					eventually.Receive(t, "the client to get the header", answered)
				}
				cancel()
				if err := eventually.Receive(t, "the client to end", done); !errors.Is(err, context.Canceled) {
					t.Errorf("client error is %v", err)
				}
				eventually.Receive(t, "upstream to see the end", ended)
				// A watch that its client has ended would otherwise be in the log like one that has failed.
				if x := r.exchange(0); (x.Err == nil) != headers {
					t.Errorf("observed error is %v", x.Err)
				}
			})
		}
	}
}

func TestShutdown(t *testing.T) {
	for _, p := range protocols {
		t.Run("ends a watch cleanly and lets a short request finish, with "+p.name, func(t *testing.T) {
			watching, asked, release := make(chan struct{}), make(chan struct{}), make(chan struct{})
			r := start(t, p.upstream, func(w http.ResponseWriter, req *http.Request) {
				if IsWatch(req) {
					_, _ = io.WriteString(w, "event\n")
					w.(http.Flusher).Flush()
					<-req.Context().Done()
					return
				}
				close(asked)
				<-release
				_, _ = io.WriteString(w, "the list")
			}, func(o *Options) { o.Grace = 3 * patience })
			type result struct {
				text string
				err  error
			}
			fetch := func(path string) <-chan result {
				done := make(chan result, 1)
				client, request := r.client(p.client), r.request(http.MethodGet, path, nil)
				go func() {
					response, err := client.Do(request)
					if err != nil {
						done <- result{err: err}
						return
					}
					defer response.Body.Close()
					first := make([]byte, 1)
					n, err := response.Body.Read(first)
					if IsWatch(request) {
						close(watching)
					}
					data := first[:n]
					if err == nil {
						var rest []byte
						rest, err = io.ReadAll(response.Body)
						data = append(data, rest...)
					}
					done <- result{string(data), err}
				}()
				return done
			}
			watch, list := fetch("/api/v1/pods?watch=true"), fetch("/api/v1/pods")
			eventually.Receive(t, "the watch", watching)
			eventually.Receive(t, "the list", asked)
			stopped := make(chan error, 1)
			go func() { stopped <- r.stop() }()
			if got := eventually.Receive(t, "the watch to end", watch); got.err != nil || got.text != "event\n" {
				t.Errorf("the watch ended with %q, %v", got.text, got.err)
			}
			close(release)
			if got := eventually.Receive(t, "the list", list); got.err != nil || got.text != "the list" {
				t.Errorf("the list is %q, %v", got.text, got.err)
			}
			if err := eventually.Receive(t, "the end", stopped); err != nil {
				t.Error(err)
			}
		})
		t.Run("closes requests that take longer than the grace, with "+p.name, func(t *testing.T) {
			asked := make(chan struct{})
			r := start(t, p.upstream, func(_ http.ResponseWriter, req *http.Request) {
				close(asked)
				<-req.Context().Done()
			}, func(o *Options) { o.Grace = -1 })
			failed := make(chan error, 1)
			client, request := r.client(p.client), r.request(http.MethodGet, "/api/v1/pods", nil)
			go func() {
				response, err := client.Do(request)
				if err == nil {
					_ = response.Body.Close()
				}
				failed <- err
			}()
			eventually.Receive(t, "the request", asked)
			if err := r.stop(); err != nil {
				t.Error(err)
			}
			if err := eventually.Receive(t, "the client to fail", failed); err == nil {
				t.Error("the client got an answer")
			}
		})
	}
}

func TestAResponseToADisconnectedClientEndsUpstream(t *testing.T) {
	// Only a failed write shows that the client has disconnected: this Transport ignores the
	// context.
	ended := make(chan error, 1)
	r := start(t, true, nil, func(o *Options) {
		o.Transport = roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: &endless{closed: ended}, Request: req}, nil
		})
	})
	for _, h2 := range []bool{false, true} {
		response := r.get(h2, "/")
		_, _ = response.Body.Read(make([]byte, 1))
		_ = response.Body.Close()
		eventually.Receive(t, "upstream's body to be closed", ended)
		n := 0
		if h2 {
			n = 1
		}
		if x := r.exchange(n); x.Err == nil || !strings.Contains(x.Err.Error(), "write to client") {
			t.Errorf("observed error is %v", x.Err)
		}
	}
}

// endless is a body that only Close ends.
type endless struct {
	closed chan<- error
	once   sync.Once
}

func (e *endless) Read(p []byte) (int, error) { return len(p), nil }

func (e *endless) Close() error {
	e.once.Do(func() { e.closed <- nil })
	return nil
}

func TestBufferedResponsesAreWrittenAtOnce(t *testing.T) {
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			r := start(t, p.upstream, func(w http.ResponseWriter, _ *http.Request) {
				_ = http.NewResponseController(w).Flush() // so that there is no Content-Length
				_, _ = io.WriteString(w, "object")
			}, func(o *Options) {
				o.Buffered = func(r *http.Request) bool { return r.URL.Path == "/object" }
			})
			for path, length := range map[string]int64{"/object": 6, "/stream": -1} {
				resp := r.get(p.client, path)
				if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "object" || resp.ContentLength != length {
					t.Errorf("%s: %q of length %d: %v, want %d", path, body, resp.ContentLength, err, length)
				}
			}
		})
	}
}
