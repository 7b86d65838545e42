package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"rockpool.dev/tests/eventually"
	"rockpool.dev/tests/fakeclock"
)

func TestManyRequestsAtOnceDialOnce(t *testing.T) {
	server := newServer(t, true, respond("ok"))
	r := newHarness(t, fastOptions(server.asServer()))
	var answers []chan error
	for range 50 {
		answers = append(answers, r.try("/"))
	}
	for _, answer := range answers {
		if err := eventually.Receive(t, "an answer", answer); err != nil {
			t.Error(err)
		}
	}
	if server.link.dials() != 1 {
		t.Errorf("%d connections", server.link.dials())
	}
}

// TestASecondConnectionIsDialedWhenStreamsRunOut also says that the first one is still alive when
// there can be no second.
func TestASecondConnectionIsDialedWhenStreamsRunOut(t *testing.T) {
	t.Parallel()
	for _, second := range []bool{true, false} {
		t.Run(fmt.Sprintf("and can be made: %t", second), func(t *testing.T) {
			t.Parallel()
			const streams, requests = 30, 50
			asked, answer := make(chan struct{}, requests), make(chan struct{})
			server := newServerWithConfig(t, true, func(_ http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/held" {
					asked <- struct{}{}
					<-answer
				}
			}, func(s *httptest.Server) { s.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: streams} })
			r := newHarness(t, fastOptions(server.asServer()))
			var held, failed []chan error
			if second {
				for range requests {
					held = append(held, r.try("/held"))
				}
				for range requests {
					eventually.Receive(t, "a request to arrive", asked)
				}
			} else {
				r.text(http.MethodGet, "/") // the settings are here
				for range streams {
					held = append(held, r.try("/held"))
					eventually.Receive(t, "a request to arrive", asked)
				}
				server.link.refuseNew()
				for range 3 {
					failed = append(failed, r.try("/"))
				}
			}
			for _, f := range failed {
				if err := eventually.Receive(t, "a request that finds no stream", f); !IsLinkError(err) {
					t.Errorf("it ended with %v", err)
				}
			}
			if want := map[bool]int{true: 2, false: 1}[second]; server.link.dials() != want {
				t.Errorf("%d connections", server.link.dials())
			}
			eventually.True(t, "no answer to be awaited but those", func() bool { return !r.address(0).pinging() })
			if slices.Contains(r.states(), Offline) {
				t.Errorf("states %v", r.states())
			}
			close(answer)
			for _, h := range held {
				if err := eventually.Receive(t, "an answer", h); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestAWatchAfterGOAWAYKeepsTheLinkSuspect while no new connection can be made: the state does not
// alternate.
func TestAWatchAfterGOAWAYKeepsTheLinkSuspect(t *testing.T) {
	t.Parallel()
	events := make(chan string)
	server := newServer(t, true, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/goaway" {
			w.Header().Set("Connection", "close")
			return
		}
		w.(http.Flusher).Flush()
		for text := range events {
			_, _ = io.WriteString(w, text)
			w.(http.Flusher).Flush()
		}
	})
	clock := fakeclock.New()
	r := newHarness(t, Options{Settings: Settings{Servers: []Server{server.asServer()}}, Clock: clock})
	watch := r.send(http.MethodGet, "/watch")
	r.text(http.MethodGet, "/goaway")
	server.link.refuseNew()
	for range 10 {
		if err := eventually.Receive(t, "a request", r.try("/")); !IsLinkError(err) {
			t.Errorf("a request ended with %v", err)
		}
	}
	if n := r.address(0).failureCount(); n != 1 {
		t.Errorf("ten requests within two seconds made %d attempts", n)
	}
	began, attempts := clock.Now(), r.address(0).failureCount()
	eventually.True(t, "five minutes", func() bool {
		if !r.address(0).pinging() { // whose answer takes real time
			clock.Step(time.Second / 2)
		}
		return clock.Since(began) > 5*time.Minute
	})
	if more := r.address(0).failureCount() - attempts; more < 3 {
		t.Errorf("%d attempts in five minutes", more)
	}
	events <- "x"
	if _, err := io.ReadFull(watch.Body, make([]byte, 1)); err != nil {
		t.Errorf("the watch: %v", err)
	}
	close(events)
	if diff := cmp.Diff([]State{Online, Suspect}, r.states()); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

func TestASilentIPAddressDelaysTheNextForAQuarterOfASecond(t *testing.T) {
	t.Parallel()
	server := newServer(t, true, respond("ok"))
	entry := server.asServer()
	_, port, _ := net.SplitHostPort(entry.URL.Host)
	entry.URL.Host, entry.TLSServerName = "api.example.:"+port, "127.0.0.1"
	r := newHarness(t, fastOptions(entry))
	a := r.address(0)
	a.resolve = func(_ context.Context, _, host string) ([]netip.Addr, error) {
		if host != "api.example." {
			t.Errorf("asked for %q", host)
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.1")}, nil
	}
	a.dialer.ControlContext = func(ctx context.Context, _, address string, _ syscall.RawConn) error {
		if strings.HasPrefix(address, "127.0.0.2") {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	began := time.Now()
	r.text(http.MethodGet, "/")
	if took := time.Since(began); took < attemptDelay || took > attemptDelay+500*time.Millisecond {
		t.Errorf("the answer took %s", took)
	}
}

func TestIPAddressesOfBothFamiliesAreTriedInTurn(t *testing.T) {
	a := &address{resolve: func(context.Context, string, string) ([]netip.Addr, error) {
		var ips []netip.Addr
		for _, ip := range []string{"2001:db8::1", "2001:db8::2", "2001:db8::3", "::ffff:192.0.2.1"} {
			ips = append(ips, netip.MustParseAddr(ip))
		}
		return ips, nil
	}}
	got, err := a.lookup(t.Context(), "api.example")
	if want := "[2001:db8::1 192.0.2.1 2001:db8::2 2001:db8::3]"; fmt.Sprint(got) != want || err != nil {
		t.Errorf("%v, %v", got, err)
	}
}

// TestAWokenAddressBeginsOneMoreAttempt: the kernel would repeat a lost SYN after up to 16 s.
func TestAWokenAddressBeginsOneMoreAttempt(t *testing.T) {
	t.Parallel()
	server := newServer(t, true, respond("ok"))
	clock := fakeclock.New()
	r := newHarness(t, Options{Settings: Settings{Servers: []Server{server.asServer()}}, Clock: clock})
	var lost atomic.Bool
	var attempts atomic.Int32
	r.address(0).dialer.ControlContext = func(ctx context.Context, _, _ string, _ syscall.RawConn) error {
		attempts.Add(1)
		if lost.Load() {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	r.fail(0, errors.New("no"))
	lost.Store(true)
	elapsed(t, clock, "an attempt", func() bool { return attempts.Load() == 1 })
	lost.Store(false)
	if took := elapsed(t, clock, "the return", func() bool { r.Wake(); return r.State() == Online }); took > wakeInterval+time.Second {
		t.Errorf("the return was used after %s", took)
	}
	if attempts.Load() != 2 || server.link.dials() != 1 {
		t.Errorf("%d attempts, %d connections", attempts.Load(), server.link.dials())
	}
}

func TestSessionsAreResumedAfterAnOutage(t *testing.T) {
	t.Parallel()
	var resumed []bool
	server := newServer(t, true, func(_ http.ResponseWriter, r *http.Request) { resumed = append(resumed, r.TLS.DidResume) })
	r := newHarness(t, fastOptions(server.asServer())).run()
	r.text(http.MethodGet, "/")
	server.link.refuse()
	r.try("/")
	r.await(Offline)
	server.link.restore()
	r.await(Online)
	r.text(http.MethodGet, "/")
	if diff := cmp.Diff([]bool{false, true}, resumed); diff != "" {
		t.Errorf("resumed (-want +got):\n%s", diff)
	}
}

func TestACAFileThatAppearsLateIsUsed(t *testing.T) {
	t.Parallel()
	server := newServer(t, true, respond("ok"))
	options := fastOptions(server.asServer())
	options.CAFile = filepath.Join(t.TempDir(), "ca.crt")
	r := newHarness(t, options).run()
	for _, way := range []http.RoundTripper{r, r.HTTP1()} {
		if _, err := way.RoundTrip(r.request(http.MethodGet, "/", nil)); !errors.Is(err, os.ErrNotExist) || !IsLinkError(err) {
			t.Errorf("without a CA file: %v", err)
		}
	}
	writeCA(t, options.CAFile)
	r.await(Online)
	if got := r.text(http.MethodGet, "/"); got != "ok" {
		t.Errorf("got %q", got)
	}
}

// TestAHeaderThatIsTooLargeIsTheRequestsFault also for the connection and the state.
func TestAHeaderThatIsTooLargeIsTheRequestsFault(t *testing.T) {
	server := newServerWithConfig(t, true, respond("ok"), func(s *httptest.Server) { s.Config.MaxHeaderBytes = 16 << 10 })
	r := newHarness(t, fastOptions(server.asServer()))
	r.text(http.MethodGet, "/")
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		request := r.request(method, "/", strings.NewReader("x"))
		request.Header.Set("X-Large", strings.Repeat("x", 40<<10))
		_, err := r.RoundTrip(request)
		var own *RequestError
		if !errors.As(err, &own) || own.Status().Code != http.StatusRequestHeaderFieldsTooLarge || IsLinkError(err) {
			t.Errorf("%s: %v", method, err)
		}
	}
	r.text(http.MethodGet, "/")
	if diff := cmp.Diff([]State{Online}, r.states()); diff != "" || server.link.dials() != 1 {
		t.Errorf("%d connections, changes (-want +got):\n%s", server.link.dials(), diff)
	}
}

// newHTTP2Server serves each connection, after the TLS handshake, with a function. It returns a
// harness that uses the server.
func newHTTP2Server(t *testing.T, serve func(net.Listener, net.Conn)) *harness {
	cert, ca := selfSigned(t, "127.0.0.1")
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{http2.NextProtoTLS}})
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			_ = c.(*tls.Conn).Handshake()
			serve(listener, c)
			_ = c.Close()
		}
	})
	t.Cleanup(func() { _ = listener.Close(); group.Wait() })
	options := fastOptions(Server{URL: &url.URL{Scheme: "https", Host: listener.Addr().String()}})
	options.CAFile = filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(options.CAFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	return newHarness(t, options)
}

// TestAConnectionThatEndsAtOnceIsNotDialedForEver: the handshake succeeds, and nothing follows.
func TestAConnectionThatEndsAtOnceIsNotDialedForEver(t *testing.T) {
	var dials atomic.Int32
	r := newHTTP2Server(t, func(net.Listener, net.Conn) { dials.Add(1) })
	if _, err := r.RoundTrip(r.request(http.MethodGet, "/", nil)); !IsLinkError(err) {
		t.Errorf("got %v", err)
	}
	if n := dials.Load(); n > attemptsEach*maxDials {
		t.Errorf("%d connections for one request", n)
	}
}

// TestAWriteThatWasNotBegunDidNotArrive: the server says so by GOAWAY, and then goes.
func TestAWriteThatWasNotBegunDidNotArrive(t *testing.T) {
	for _, begun := range []bool{false, true} {
		r := newHTTP2Server(t, func(listener net.Listener, c net.Conn) {
			framer := http2.NewFramer(c, c)
			_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
			_ = framer.WriteSettings()
			for {
				frame, err := framer.ReadFrame()
				if err != nil {
					return
				}
				if headers, ok := frame.(*http2.HeadersFrame); ok {
					_ = listener.Close()
					last := uint32(0)
					if begun {
						last = headers.StreamID
					}
					_ = framer.WriteGoAway(last, http2.ErrCodeNo, nil)
					if begun {
						return
					}
				}
			}
		})
		_, err := r.RoundTrip(r.request(http.MethodPost, "/", strings.NewReader("x")))
		if !IsLinkError(err) || MayHaveArrived(err) != begun {
			t.Errorf("begun: %t: %v, may have arrived: %t", begun, err, MayHaveArrived(err))
		}
	}
}

// TestGOAWAYLosesNothing: a server sends GOAWAY at random to writers. No request fails, none is
// carried out twice.
func TestGOAWAYLosesNothing(t *testing.T) {
	t.Parallel()
	const writers, each = 8, 60
	var mu sync.Mutex
	done := map[string]int{}
	server := newServer(t, true, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		mu.Lock()
		done[string(body[:20])]++
		mu.Unlock()
		if rand.IntN(20) == 0 {
			w.Header().Set("Connection", "close")
		}
	})
	r := newHarness(t, fastOptions(server.asServer()))
	var group sync.WaitGroup
	for writer := range writers {
		group.Go(func() {
			for i := range each {
				body := fmt.Sprintf("%20s", fmt.Sprint(writer, "/", i)) + strings.Repeat("x", rand.IntN(60_000))
				request := r.request(http.MethodPatch, "/", &closing{Reader: strings.NewReader(body)})
				if i%2 == 0 { // the length of the others is not known
					request.ContentLength = int64(len(body))
				}
				response, err := r.RoundTrip(request)
				if err != nil {
					t.Errorf("writer %d, request %d: %v", writer, i, err)
					continue
				}
				_ = response.Body.Close()
			}
		})
	}
	group.Wait()
	mu.Lock()
	defer mu.Unlock()
	if len(done) != writers*each {
		t.Errorf("%d of %d requests were carried out", len(done), writers*each)
	}
	for name, times := range done {
		if times != 1 {
			t.Errorf("%s was carried out %d times", name, times)
		}
	}
	if diff := cmp.Diff([]State{Online}, r.states()); diff != "" || server.link.dials() < 5 {
		t.Errorf("%d connections, changes (-want +got):\n%s", server.link.dials(), diff)
	}
}

func TestLargeBodiesStream(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			began := make(chan struct{})
			server := newServer(t, v.h2, func(w http.ResponseWriter, r *http.Request) {
				first := make([]byte, 10)
				if _, err := io.ReadFull(r.Body, first); err != nil {
					t.Error(err)
				}
				close(began)
				n, err := io.Copy(io.Discard, r.Body)
				if err != nil {
					t.Error(err)
				}
				fmt.Fprint(w, n+10)
			})
			r := newHarness(t, fastOptions(server.asServer()))
			reader, writer := io.Pipe()
			var group sync.WaitGroup
			group.Go(func() {
				chunk := make([]byte, 2*maxReplay)
				_, _ = writer.Write(chunk)
				<-began // while the client still writes
				_, _ = writer.Write(chunk)
				_ = writer.Close()
			})
			response, err := r.RoundTrip(r.request(http.MethodPost, "/", reader))
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			group.Wait()
			if data, err := io.ReadAll(response.Body); string(data) != fmt.Sprint(4*maxReplay) || err != nil {
				t.Errorf("%s, %v", data, err)
			}
		})
	}
}

// TestAResponseThatNobodyReadsHoldsLittleMemory: one stream gets a window of 1 MiB.
func TestAResponseThatNobodyReadsHoldsLittleMemory(t *testing.T) {
	server := newServer(t, true, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/large" {
			_, _ = w.Write(make([]byte, 8<<20))
		}
	})
	r := newHarness(t, fastOptions(server.asServer()))
	response := r.send(http.MethodGet, "/large")
	eventually.True(t, "the window to be full", func() bool { return server.link.forwarded() >= receiveBuffer })
	r.text(http.MethodGet, "/small") // comes after what the server could send before
	if got := server.link.forwarded(); got > receiveBuffer*5/4 {
		t.Errorf("%d bytes were sent", got)
	}
	if n, err := io.Copy(io.Discard, response.Body); n != 8<<20 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// TestARefusedTLSSessionIsNotOfferedAgain: the alert may be about the session.
func TestARefusedTLSSessionIsNotOfferedAgain(t *testing.T) {
	t.Parallel()
	var refuse atomic.Bool
	var resumed []bool
	server := newServerWithConfig(t, true, func(_ http.ResponseWriter, r *http.Request) {
		resumed = append(resumed, r.TLS.DidResume)
	}, func(s *httptest.Server) {
		s.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			if refuse.Load() {
				return nil, errors.New("refused")
			}
			return nil, nil
		}}
	})
	r := newHarness(t, fastOptions(server.asServer()))
	for _, refused := range []bool{false, false, true, false} {
		refuse.Store(refused)
		if _, err := r.RoundTrip(r.request(http.MethodGet, "/", nil)); (err != nil) != refused {
			t.Errorf("refused: %t: %v", refused, err)
		}
		for _, c := range r.address(0).all() {
			_ = c.Close()
		}
	}
	if diff := cmp.Diff([]bool{false, true, false}, resumed); diff != "" {
		t.Errorf("resumed (-want +got):\n%s", diff)
	}
}

// A load balancer may speak HTTP/2 alone. That it refuses the connections for short requests must
// not cost the others their sessions.
func TestARefusedProtocolLeavesTheTLSSession(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var resumed []bool
	server := newServerWithConfig(t, true, func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		resumed = append(resumed, r.TLS.DidResume)
	}, func(s *httptest.Server) {
		s.TLS = &tls.Config{}
		s.TLS.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if slices.Contains(hello.SupportedProtos, "h2") {
				return nil, nil
			}
			return &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{"other"}}, nil // Go lets HTTP/1.1 pass at "h2"
		}
	})
	r := newHarness(t, fastOptions(server.asServer()))
	for range 2 {
		if _, err := r.RoundTrip(r.request(http.MethodGet, "/", nil)); err != nil {
			t.Fatal(err)
		}
		if _, err := r.address(0).dial(t.Context(), newDialing(time.Now()), "http/1.1"); !refusesProtocols(err) {
			t.Fatalf("a dial for HTTP/1.1 alone: %v", err)
		}
		for _, c := range r.address(0).all() {
			_ = c.Close()
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff([]bool{false, true}, resumed); diff != "" {
		t.Errorf("resumed (-want +got):\n%s", diff)
	}
}

// TestATLSSessionOutlivesAFailedLink: crypto/tls deletes a session when a handshake with it fails.
func TestATLSSessionOutlivesAFailedLink(t *testing.T) {
	cache := &sessions{ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	cache.Put("key", &tls.ClientSessionState{})
	for failure := 1; failure < maxDeletions; failure++ {
		cache.Put("key", nil)
		if _, kept := cache.Get("key"); !kept {
			t.Fatalf("the session is gone after %d failures", failure)
		}
	}
	cache.Put("key", nil)
	if _, kept := cache.Get("key"); kept {
		t.Errorf("the session is still used after %d failures", maxDeletions)
	}
}
