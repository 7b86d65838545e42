package upstream

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rockpool.dev/tests/eventually"
	"rockpool.dev/tests/fakeclock"
)

// TestSlowLinksWork: at start, after GOAWAY while a watch is quiet, and after a connection has ended.
func TestSlowLinksWork(t *testing.T) {
	t.Parallel()
	for _, roundTrip := range []time.Duration{400 * time.Millisecond, 1200 * time.Millisecond} {
		t.Run(roundTrip.String(), func(t *testing.T) {
			t.Parallel()
			event := make(chan struct{})
			server := newServer(t, true, func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/goaway":
					w.Header().Set("Connection", "close")
				case "/watch":
					w.(http.Flusher).Flush()
					<-event
				}
				_, _ = io.WriteString(w, "ok")
			})
			server.link.setRoundTrip(roundTrip)
			r := newHarness(t, Options{Settings: Settings{Servers: []Server{server.asServer()}}}).run()
			began := time.Now()
			watch := r.send(http.MethodGet, "/watch")
			if took := time.Since(began); took > 4*roundTrip+time.Second {
				t.Errorf("the first answer took %s", took)
			}
			r.text(http.MethodGet, "/goaway")
			if got := r.text(http.MethodGet, "/"); got != "ok" || server.link.dials() != 2 {
				t.Errorf("after GOAWAY: %q, %d connections", got, server.link.dials())
			}
			close(event)
			if data, err := io.ReadAll(watch.Body); string(data) != "ok" || err != nil {
				t.Errorf("the watch: %q, %v", data, err)
			}
			for _, c := range r.address(0).all() {
				_ = c.Close()
			}
			if got := r.text(http.MethodGet, "/"); got != "ok" || server.link.dials() != 3 {
				t.Errorf("after the end of the connection: %q, %d connections", got, server.link.dials())
			}
			if diff := cmp.Diff([]State{Online}, r.states()); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTheFirstRequestOverASatelliteIsAnswered(t *testing.T) {
	t.Parallel()
	server := newServer(t, true, respond("ok"))
	server.link.setRoundTrip(2 * time.Second)
	r := newHarness(t, Options{Settings: Settings{Servers: []Server{server.asServer()}}}).run()
	if got := r.text(http.MethodGet, "/"); got != "ok" || server.link.dials() != 1 {
		t.Errorf("%q over %d connections", got, server.link.dials())
	}
	if diff := cmp.Diff([]State{Online}, r.states()); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

// TestAThinLinkIsNotADeadOne: for four seconds all answers, also those of PINGs, wait in the queue.
func TestAThinLinkIsNotADeadOne(t *testing.T) {
	t.Parallel()
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			const size = 400_000
			server := newServer(t, v.h2, func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/watch":
					_, _ = io.WriteString(w, "x")
					w.(http.Flusher).Flush()
					<-r.Context().Done()
				case "/list":
					_, _ = w.Write(make([]byte, size))
				}
			})
			r := newHarness(t, Options{Settings: Settings{Servers: []Server{server.asServer()}}}).run()
			watch := r.send(http.MethodGet, "/watch")
			if _, err := watch.Body.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			cut := make(chan error, 1)
			go func() { _, err := watch.Body.Read(make([]byte, 1)); cut <- err }()
			server.link.setRate(size / 4)
			list := make(chan int, 1)
			go func() { list <- len(r.text(http.MethodGet, "/list")) }()
			eventually.True(t, "the list to fill the link", func() bool { return server.link.forwarded() > size/2 })
			small := r.try("/small")
			if got := eventually.Receive(t, "the list", list); got != size {
				t.Errorf("%d bytes", got)
			}
			if err := eventually.Receive(t, "the small request", small); err != nil {
				t.Errorf("the small request: %v", err)
			}
			if len(cut) != 0 {
				t.Errorf("the watch ended with %v", <-cut)
			}
			if diff := cmp.Diff([]State{Online}, r.states()); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSlowAnswersMayTakeTheirTime(t *testing.T) {
	t.Parallel()
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			answer := make(chan struct{})
			server := newServer(t, v.h2, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					<-answer
					_, _ = io.WriteString(w, "late")
				}
			})
			r := newHarness(t, Options{Settings: Settings{Servers: []Server{server.asServer()}}}).run()
			r.text(http.MethodGet, "/")
			began := time.Now()
			slow := make(chan string, 1)
			go func() { slow <- r.text(http.MethodGet, "/slow") }()
			eventually.True(t, "only PINGs or new connections to be answered for two seconds", func() bool {
				return r.address(0).heard.time().Sub(began) > 2*time.Second
			})
			close(answer)
			if got := eventually.Receive(t, "the answer", slow); got != "late" {
				t.Errorf("got %q", got)
			}
			if got := r.states(); len(got) != 1 {
				t.Errorf("states %v", got)
			}
		})
	}
}

func TestAQuietLinkCostsNothing(t *testing.T) {
	t.Parallel()
	server := newServer(t, true, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		if r.URL.Path == "/watch" {
			<-r.Context().Done()
		}
	})
	clock := fakeclock.New()
	r := newHarness(t, Options{Settings: Settings{Servers: []Server{server.asServer()}}, Clock: clock})
	for range 2 { // so that the settings are acknowledged
		r.text(http.MethodGet, "/")
	}
	before := server.link.forwarded()
	eventually.True(t, "nothing to be due without a stream", func() bool { clock.Step(time.Second); return !clock.HasWaiters() })
	if more := server.link.forwarded() - before; more != 0 {
		t.Errorf("%d bytes without a stream", more)
	}
	watch := r.send(http.MethodGet, "/watch")
	before = server.link.forwarded()
	for range 2 {
		clock.Step(DefaultKeepaliveInterval - time.Second)
		if r.address(0).pinging() {
			t.Error("a PING before its time")
		}
		sent := server.link.forwarded()
		clock.Step(2 * time.Second)
		eventually.True(t, "a PING and its answer", func() bool {
			return server.link.forwarded() > sent+2*17 && !r.address(0).pinging()
		})
	}
	// Two PINGs of 17 bytes, their answers, and what TLS adds to each.
	if more := server.link.forwarded() - before; more > 400 {
		t.Errorf("%d bytes with a quiet watch", more)
	}
	_ = watch.Body.Close()
	if server.link.dials() != 1 || server.probeCount() != 0 {
		t.Errorf("%d connections, %d probes", server.link.dials(), server.probeCount())
	}
}

// TestAnAcknowledgedUploadIsNotSilent: the answer comes after the upload, which a thin link takes
// long to carry. Only the kernel hears of the peer meanwhile.
func TestAnAcknowledgedUploadIsNotSilent(t *testing.T) {
	t.Parallel()
	server := newServer(t, true, respond("ok"))
	r := newHarness(t, fastOptions(server.asServer()))
	r.text(http.MethodGet, "/")
	var acknowledged atomic.Bool
	acknowledged.Store(true)
	var bytes atomic.Uint64
	r.address(0).segments = func(net.Conn) segments {
		if acknowledged.Load() {
			bytes.Add(1000)
		}
		return segments{progress: bytes.Load()} // the latest just now
	}
	server.link.blackhole()
	before := bytes.Load()
	failed := make(chan error, 1)
	request := r.request(http.MethodPost, "/", strings.NewReader("x"))
	go func() { _, err := r.RoundTrip(request); failed <- err }()
	// Each time the connection would have been closed otherwise.
	eventually.True(t, "the kernel to be asked four times", func() bool { return bytes.Load() >= before+4000 })
	if len(failed) != 0 {
		t.Fatalf("the request failed with %v", <-failed)
	}
	acknowledged.Store(false)
	if err := eventually.Receive(t, "the end of the request", failed); !errors.Is(err, errSilent) || !MayHaveArrived(err) {
		t.Errorf("got %v", err)
	}
}

// TestAnUploadMayTakeItsTimeBehindAProxy: a proxy on the way takes the whole body at once, and passes
// it on over a thin link. The kernel hears nothing meanwhile, and the PING is behind the body.
func TestAnUploadMayTakeItsTimeBehindAProxy(t *testing.T) {
	t.Parallel()
	server := newServer(t, true, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, n)
	})
	r := newHarness(t, fastOptions(server.asServer()))
	r.text(http.MethodGet, "/")
	server.link.setRate(8 << 10)
	for _, length := range []int64{24 << 10, -1} { // three seconds
		request := r.request(http.MethodPost, "/", io.NopCloser(strings.NewReader(strings.Repeat("x", 24<<10))))
		request.ContentLength = length
		response, err := r.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(response.Body); string(got) != fmt.Sprint(24<<10) || err != nil {
			t.Errorf("the API server got %s bytes, %v", got, err)
		}
		_ = response.Body.Close()
	}
	if diff := cmp.Diff([]State{Online}, r.states()); diff != "" || server.link.dials() != 1 {
		t.Errorf("%d connections; changes (-want +got):\n%s", server.link.dials(), diff)
	}
}
