package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rockpool.dev/tests/eventually"
)

// answerName answers GET /watch with its name and no end, and any other request with its name.
func answerName(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, name)
		if r.URL.Path == "/watch" {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}
	}
}

// pinging tells that a PING has no answer yet.
func (a *address) pinging() bool {
	return slices.ContainsFunc(a.all(), func(c *conn) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return !c.pinged.IsZero()
	})
}

// failureCount is how many dials have failed in succession.
func (a *address) failureCount() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failures
}

// watch opens a watch, which must come from the server of that name.
func (r *harness) watch(place string) io.Reader {
	r.t.Helper()
	response := r.send(http.MethodGet, "/watch")
	first := make([]byte, len(place))
	if _, err := io.ReadFull(response.Body, first); err != nil || string(first) != place {
		r.t.Fatalf("the watch begins with %q, %v, want %q", first, err, place)
	}
	return response.Body
}

func TestRequestsMoveOnWhenOneOfTwoServersDies(t *testing.T) {
	t.Parallel()
	for _, v := range versions {
		for name, die := range map[string]func(*link){"with a reset": (*link).refuse, "silently": (*link).blackhole} {
			t.Run(name+" over "+v.name, func(t *testing.T) {
				t.Parallel()
				asked := make(chan struct{}, 1)
				first := newServer(t, v.h2, func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/slow" {
						asked <- struct{}{}
						<-r.Context().Done()
						return
					}
					answerName("1")(w, r)
				})
				second := newServer(t, v.h2, answerName("2"))
				// The settings are the defaults: the test is about how long a request takes.
				r := newHarness(t, Options{Settings: Settings{Servers: []Server{first.asServer(), second.asServer()}}}).run()
				watch := r.watch("1")
				started := time.Now()
				slow := make(chan string, 1)
				go func() { slow <- r.text(http.MethodGet, "/slow") }()
				eventually.Receive(t, "the slow request", asked)
				die(first.link)
				for request, answer := range map[string]string{"sent before": eventually.Receive(t, "the slow request's answer", slow), "sent after": r.text(http.MethodGet, "/")} {
					if answer != "2" {
						t.Errorf("the request %s: %q", request, answer)
					}
				}
				took := time.Since(started)
				// 2.5 s on an idle machine if silent.
				t.Logf("the second server answered after %s", took)
				if took > 5*time.Second {
					t.Errorf("that is too slow")
				}
				if v.h2 || name == "with a reset" { // without a PING, TCP finds out about a watch
					if _, err := watch.Read(make([]byte, 1)); !IsLinkError(err) {
						t.Errorf("the watch ended with %v", err)
					}
				}
				r.watch("2") // at once, as a resumed watch would
				// Suspect until the second one, which was never asked, has answered. After a silence it
				// has a connection before the first one is given up.
				want := []State{Online, Suspect, Online}
				if v.h2 && name == "silently" {
					want = []State{Online}
				}
				if diff := cmp.Diff(want, r.states()); diff != "" {
					t.Errorf("changes (-want +got):\n%s", diff)
				}
			})
		}
	}
}

func TestASilentConnectionIsClosedWhileAnotherAnswers(t *testing.T) {
	t.Parallel()
	answer := make(chan struct{})
	var slowRequests atomic.Int32
	server := newServer(t, true, func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		first := false
		if r.URL.Path == "/slow" {
			first = slowRequests.Add(1) == 1
			select {
			case answer <- struct{}{}:
			case <-r.Context().Done():
				return
			}
		}
		if first || len(data) > 0 { // an answer could pass before the link forgets the connection
			<-r.Context().Done()
			return
		}
		answerName("1")(w, r)
	})
	r := newHarness(t, fastOptions(server.asServer())).run()
	watch := r.watch("1")
	slow, written := make(chan string, 1), make(chan error, 1)
	go func() { slow <- r.text(http.MethodGet, "/slow") }()
	eventually.Receive(t, "the slow request", answer)
	post := r.request(http.MethodPost, "/", strings.NewReader("x"))
	go func() { _, err := r.RoundTrip(post); written <- err }()

	server.link.forgetConns()
	if _, err := watch.Read(make([]byte, 1)); !errors.Is(err, errSilent) || !IsLinkError(err) {
		t.Errorf("the watch ended with %v", err)
	}
	eventually.Receive(t, "the slow request to come again", answer)
	if got := eventually.Receive(t, "its answer", slow); got != "1" {
		t.Errorf("the slow request: %q", got)
	}
	if err := eventually.Receive(t, "the write", written); !errors.Is(err, errSilent) || !MayHaveArrived(err) {
		t.Errorf("the write ended with %v", err)
	}
	r.watch("1")
	for _, s := range r.states() {
		if s == Offline {
			t.Errorf("offline though the server answers: %v", r.states())
		}
	}
}

// TestAnUploadIntoABlackHoleHoldsNobodyUp: a writer waits for the dead link, and keeps what only
// writers need.
func TestAnUploadIntoABlackHoleHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	server := func(name string) *apiServer {
		return newServer(t, true, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			answerName(name)(w, r)
		})
	}
	first, second := server("1"), server("2")
	r := newHarness(t, Options{Settings: Settings{Servers: []Server{first.asServer(), second.asServer()}}}).run()
	if got := r.text(http.MethodGet, "/"); got != "1" {
		t.Errorf("got %q", got)
	}
	if err := r.address(0).all()[0].socket.Conn.(*net.TCPConn).SetWriteBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	first.link.ignoreAll()
	var uploads sync.WaitGroup
	defer uploads.Wait()
	for range 10 {
		request := r.request(http.MethodPost, "/", strings.NewReader(strings.Repeat("x", maxReplay)))
		uploads.Go(func() {
			if response, err := r.RoundTrip(request); err == nil {
				_ = response.Body.Close()
			} else if !IsLinkError(err) {
				t.Errorf("an upload ended with %v", err)
			}
		})
	}
	began := time.Now()
	if got := r.text(http.MethodGet, "/"); got != "2" {
		t.Errorf("got %q", got)
	}
	t.Logf("the second server answered after %s", time.Since(began))
}

func TestARequestWithoutAnAnswerSaysNothingOfTheRoundTrip(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	server := newServer(t, true, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			asked <- struct{}{}
			<-r.Context().Done()
		}
	})
	r := newHarness(t, fastOptions(server.asServer()))
	r.text(http.MethodGet, "/")
	a := r.address(0)
	a.mu.Lock()
	a.rtt = 2 * time.Second
	a.mu.Unlock()
	ctx, leave := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := r.RoundTrip(r.request(http.MethodGet, "/slow", nil).WithContext(ctx))
		ended <- err
	}()
	eventually.Receive(t, "the request", asked)
	leave()
	if err := eventually.Receive(t, "the request to end", ended); !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	if got := a.roundTrip(); got != 2*time.Second {
		t.Errorf("the round trip is taken for %s", got)
	}
}
