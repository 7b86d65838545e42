package upstream

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rockpool.dev/tests/eventually"
)

// These tests are not parallel, so as not to disturb those that measure time.

// shortHarness is an Upstream to a server that answers with the protocol, the Authorization and the
// remote address of each request. Paths that begin with /short are short requests. The server is
// near enough.
func shortHarness(t *testing.T, handler http.HandlerFunc) (*harness, *apiServer) {
	t.Helper()
	server := newServer(t, true, func(w http.ResponseWriter, r *http.Request) {
		if handler != nil {
			handler(w, r)
			return
		}
		_, _ = fmt.Fprintf(w, "%s %s %s", r.Proto, r.Header.Get("Authorization"), r.RemoteAddr)
	})
	options := fastOptions(server.asServer())
	options.IsShort = func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/short") }
	r := newHarness(t, options)
	r.text(http.MethodGet, "/")
	r.setRoundTrip(time.Millisecond)
	return r, server
}

func (r *harness) setRoundTrip(d time.Duration) {
	a := r.address(0)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rtt = d
}

// warm sends short requests until one is answered over a connection of its own.
func (r *harness) warm(path string) {
	r.t.Helper()
	eventually.True(r.t, "a connection for short requests", func() bool {
		for range busy {
			response := r.send(http.MethodGet, path)
			if _, err := io.Copy(io.Discard, response.Body); err != nil {
				r.t.Fatal(err)
			}
			if response.ProtoMajor == 1 {
				return true
			}
		}
		return false
	})
}

func TestShortRequestsHaveConnectionsOfTheirOwn(t *testing.T) {
	r, _ := shortHarness(t, nil)
	r.warm("/short")
	protocol := func(method, path, token string, body io.Reader) string {
		t.Helper()
		q := r.request(method, path, body)
		q.Header.Set("Authorization", token)
		response, err := r.RoundTrip(q)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		fields := strings.Fields(string(text))
		if fields[1] != token {
			t.Errorf("%s %s arrived with the token %s, want %s", method, path, fields[1], token)
		}
		return fields[0]
	}
	for i, c := range []struct {
		method, path string
		body         io.Reader
		want         string
	}{
		{http.MethodGet, "/short", nil, "HTTP/1.1"},
		{http.MethodGet, "/short/other", nil, "HTTP/1.1"},
		{http.MethodGet, "/long", nil, "HTTP/2.0"},
		{http.MethodGet, "/watch", nil, "HTTP/2.0"},
		{http.MethodPost, "/short", strings.NewReader("{}"), "HTTP/2.0"},
		{http.MethodDelete, "/short", nil, "HTTP/2.0"},
		{http.MethodGet, "/short", nil, "HTTP/1.1"},
	} {
		if got := protocol(c.method, c.path, fmt.Sprint("token-", i), c.body); got != c.want {
			t.Errorf("%s %s came over %s, want %s", c.method, c.path, got, c.want)
		}
	}
	r.setRoundTrip(nearby + time.Millisecond)
	a := r.address(0)
	if over := a.short.take(r.request(http.MethodGet, "/short", nil)); over != nil {
		t.Error("an API server that is far away has a second connection")
	}
}

func TestFewConnectionsCarryManyShortRequests(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]bool{}
	r, _ := shortHarness(t, func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 1 {
			mu.Lock()
			seen[r.RemoteAddr] = true
			mu.Unlock()
		}
		_, _ = io.WriteString(w, r.URL.Path)
	})
	r.warm("/short")
	var clients sync.WaitGroup
	for i := range 2 * maxShort {
		clients.Go(func() {
			for j := range 10 {
				path := fmt.Sprintf("/short/%d/%d", i, j)
				response, err := r.RoundTrip(r.request(http.MethodGet, path, nil))
				if err != nil {
					t.Error(err)
					return
				}
				text, err := io.ReadAll(response.Body)
				_ = response.Body.Close()
				if err != nil || string(text) != path {
					t.Errorf("%s was answered with %q, %v", path, text, err)
				}
			}
		})
	}
	clients.Wait()
	mu.Lock()
	defer mu.Unlock()
	if len(seen) == 0 || len(seen) > maxShort {
		t.Errorf("%d connections, want 1 to %d", len(seen), maxShort)
	}
}

func TestAFewShortRequestsNeedNoSecondConnection(t *testing.T) {
	r, server := shortHarness(t, nil)
	for range busy - 1 {
		r.text(http.MethodGet, "/short")
	}
	if n := server.link.dials(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func TestAnIdleConnectionThatTheServerHasClosedCostsNoRequest(t *testing.T) {
	r, server := shortHarness(t, nil)
	r.warm("/short")
	server.link.forgetConns() // the HTTP/2 connection, too
	if got := r.text(http.MethodGet, "/short"); !strings.HasPrefix(got, "HTTP/2.0") {
		t.Errorf("answered %q", got)
	}
	server.CloseClientConnections()
	if got := r.text(http.MethodGet, "/short"); !strings.HasPrefix(got, "HTTP/2.0") {
		t.Errorf("answered %q", got)
	}
}

func TestAnAnswerThatWasNotReadToItsEndEndsItsConnection(t *testing.T) {
	large := strings.Repeat("x", 1<<20)
	r, _ := shortHarness(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/short/large" {
			_, _ = io.WriteString(w, large)
			return
		}
		_, _ = io.WriteString(w, "small")
	})
	for _, leave := range []struct {
		name string
		how  func(cancel context.CancelFunc, response *http.Response)
	}{
		{"closes the body", func(_ context.CancelFunc, response *http.Response) { _ = response.Body.Close() }},
		{"cancels the request", func(cancel context.CancelFunc, response *http.Response) {
			cancel()
			if _, err := io.Copy(io.Discard, response.Body); err == nil {
				t.Error("the answer looks complete")
			}
		}},
	} {
		r.warm("/short")
		ctx, cancel := context.WithCancel(t.Context())
		response, err := r.RoundTrip(r.request(http.MethodGet, "/short/large", nil).WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		if response.ProtoMajor != 1 {
			t.Fatalf("%s: over %s", leave.name, response.Proto)
		}
		if _, err := io.ReadFull(response.Body, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		leave.how(cancel, response)
		cancel()
		for range 2 * busy {
			if got := r.text(http.MethodGet, "/short"); got != "small" {
				t.Fatalf("after a client %s, another gets %d bytes", leave.name, len(got))
			}
		}
	}
}

func TestConnectionsForShortRequestsEndWithTheOneBesideThem(t *testing.T) {
	r, server := shortHarness(t, nil)
	r.warm("/short")
	a := r.address(0)
	a.near().http2.SetDoNotReuse() // as after a GOAWAY, or with other CAs
	if got := r.text(http.MethodGet, "/short"); !strings.HasPrefix(got, "HTTP/2.0") {
		t.Errorf("answered %q", got)
	}
	eventually.True(t, "the connections to end", func() bool {
		r.setRoundTrip(time.Millisecond) // the new handshake may have taken long
		r.text(http.MethodGet, "/short")
		a.short.mu.Lock()
		defer a.short.mu.Unlock()
		for _, c := range a.short.idle {
			if c.beside != a.near() {
				return false
			}
		}
		return true
	})
	if server.link.open() == 0 {
		t.Error("the HTTP/2 connection has ended, too")
	}
}

func TestIdleConnectionsForShortRequestsEnd(t *testing.T) {
	r, _ := shortHarness(t, nil)
	r.warm("/short")
	a := r.address(0)
	a.short.mu.Lock()
	for _, c := range a.short.idle {
		c.since = c.since.Add(-idleConnTimeout)
	}
	a.short.mu.Unlock()
	a.short.expire()
	a.short.mu.Lock()
	defer a.short.mu.Unlock()
	if len(a.short.idle) != 0 || a.short.timer != nil {
		t.Errorf("%d connections are left", len(a.short.idle))
	}
}

func TestABlackHoleIsToldInTimeToShortRequests(t *testing.T) {
	r, server := shortHarness(t, nil)
	r.run()
	r.warm("/short")
	server.link.blackhole()
	began := time.Now()
	_, err := r.RoundTrip(r.request(http.MethodGet, "/short", nil))
	if took := time.Since(began); !IsLinkError(err) || took > 4*time.Second {
		t.Errorf("failed after %s with %v", took, err)
	}
}

func TestInterimResponsesOfShortRequestsArePassedOn(t *testing.T) {
	r, _ := shortHarness(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/short/hints" {
			w.Header().Set("Link", "x")
			w.WriteHeader(http.StatusEarlyHints)
		}
		_, _ = io.WriteString(w, "ok")
	})
	r.warm("/short")
	var got []int
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { got = append(got, code); return nil },
	})
	response, err := r.RoundTrip(r.request(http.MethodGet, "/short/hints", nil).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || string(text) != "ok" || len(got) != 1 || got[0] != http.StatusEarlyHints {
		t.Errorf("got %v, then %q, %v", got, text, err)
	}
}

func TestARequestOnADeadConnectionGoesOverTheOtherOne(t *testing.T) {
	r, _ := shortHarness(t, func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 1 && r.URL.Path == "/short/dead" {
			<-r.Context().Done() // as if a proxy on the way had lost this connection alone
			return
		}
		_, _ = io.WriteString(w, r.Proto)
	})
	r.run()
	r.warm("/short")
	began := time.Now()
	if got := r.text(http.MethodGet, "/short/dead"); got != "HTTP/2.0" {
		t.Errorf("answered %q", got)
	}
	if took := time.Since(began); took < longAsk || took > 3*longAsk {
		t.Errorf("it took %s", took)
	}
	if r.State() != Online {
		t.Errorf("the state is %s", r.State())
	}
}

// A load balancer that closes an idle connection may say so with a 408. That is no answer to the
// next request.
func TestAnAnswerThatNobodyHasAskedForIsNotThatOfTheNextRequest(t *testing.T) {
	for name, unasked := range map[string]string{
		"a timeout of a load balancer": "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
		"an answer":                    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother",
		"a 503 of a load balancer":     "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
		"a 404":                        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
		"a hundred and its answer":     "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother",
		"an empty line":                "\r\n",
		"the end":                      "",
	} {
		t.Run(name, func(t *testing.T) {
			idle := make(chan struct{})
			end := make(chan struct{})
			r, _ := shortHarness(t, func(w http.ResponseWriter, r *http.Request) {
				if r.ProtoMajor == 1 && r.URL.Path == "/short/last" {
					c, out, err := http.NewResponseController(w).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close()
					_, _ = io.WriteString(out, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
					_ = out.Flush()
					<-idle
					_, _ = io.WriteString(out, unasked)
					_ = out.Flush()
					if unasked != "" {
						<-end
					}
					return
				}
				_, _ = io.WriteString(w, "ok")
			})
			isIdle := sync.OnceFunc(func() { close(idle) })
			defer close(end)
			defer isIdle()
			r.warm("/short/last")
			short := &r.address(0).short
			ofIdle := func(is func(*shortConn) bool) func() bool {
				return func() bool {
					short.mu.Lock()
					defer short.mu.Unlock()
					return slices.ContainsFunc(short.idle, is)
				}
			}
			eventually.True(t, "the connection to be idle", ofIdle(func(*shortConn) bool { return true }))
			eventually.True(t, "the session tickets to be read", ofIdle((*shortConn).quiet))
			isIdle()
			eventually.True(t, "the bytes to arrive", ofIdle(func(c *shortConn) bool { return c.input.has() }))
			for range 3 {
				response := r.send(http.MethodGet, "/short")
				body, _ := io.ReadAll(response.Body)
				_ = response.Body.Close()
				if response.StatusCode != http.StatusOK || string(body) != "ok" {
					t.Errorf("the next request is answered %s %q", response.Status, body)
				}
			}
		})
	}
}

// What nobody has asked for may have come with the answer. Then it waits above the socket, in TLS.
func TestAnAnswerThatCameWithTheOneBeforeIsNotThatOfTheNextRequest(t *testing.T) {
	asked := "HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n" + strings.Repeat("x", 10_000)
	const unasked = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother"
	for name, records := range map[string][]string{
		"in its record":    {asked + unasked},
		"in a further one": {asked, unasked},
	} {
		t.Run(name, func(t *testing.T) {
			end := make(chan struct{})
			r, _ := shortHarness(t, func(w http.ResponseWriter, r *http.Request) {
				if r.ProtoMajor != 1 || r.URL.Path != "/short/last" {
					_, _ = io.WriteString(w, "ok")
					return
				}
				c, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				for _, record := range records {
					_, _ = io.WriteString(c, record)
				}
				<-end
			})
			defer close(end)
			r.warm("/short")
			response := r.send(http.MethodGet, "/short/last")
			if response.ProtoMajor != 1 {
				t.Fatalf("over %s", response.Proto)
			}
			if _, err := io.Copy(io.Discard, response.Body); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				response := r.send(http.MethodGet, "/short")
				body, _ := io.ReadAll(response.Body)
				_ = response.Body.Close()
				if response.StatusCode != http.StatusOK || string(body) != "ok" {
					t.Errorf("the next request is answered %s %q", response.Status, body)
				}
			}
		})
	}
}
