package upstream

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/tests/eventually"
)

// onePlace answers GET /watch with an event and no end, and anything else with its name.
func onePlace(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, name)
		if r.URL.Path == "/watch" {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}
	}
}

// watch opens a watch, which must come from the place named.
func (r *rig) watch(place string) io.Reader {
	r.t.Helper()
	response := r.send(http.MethodGet, "/watch")
	first := make([]byte, len(place))
	if _, err := io.ReadFull(response.Body, first); err != nil || string(first) != place {
		r.t.Fatalf("the watch begins with %q, %v, want %q", first, err, place)
	}
	return response.Body
}

func TestOneServerOfTwoDies(t *testing.T) {
	for _, v := range versions {
		for name, die := range map[string]func(*link){"with a reset": (*link).refuse, "silently": (*link).swallow} {
			t.Run(name+" over "+v.name, func(t *testing.T) {
				asked := make(chan struct{}, 1)
				first := newServer(t, v.h2, func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/slow" {
						asked <- struct{}{}
						<-r.Context().Done()
						return
					}
					onePlace("1")(w, r)
				})
				second := newServer(t, v.h2, onePlace("2"))
				// The settings are the defaults: what matters is how long a request takes.
				r := build(t, Options{Settings: Settings{Servers: []Server{first.at(), second.at()}}}).run()
				r.await(Online)
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
				t.Logf("answered by the other after %s", took) // 2.5 s for the silent one on a machine with nothing else to do
				if took > 5*time.Second {
					t.Errorf("that is too long")
				}
				if _, err := watch.Read(make([]byte, 1)); !IsLinkError(err) {
					t.Errorf("the watch ended with %v", err)
				}
				r.watch("2") // at once, as a watch is resumed
				if got := r.states(); len(got) != 1 {
					t.Errorf("the link has changed its state though the second was there: %v", got)
				}
			})
		}
	}
}

func TestABodyThatDoesNotBeginAsksForAProbe(t *testing.T) {
	for _, begins := range []bool{false, true} {
		t.Run(fmt.Sprintf("it has begun: %t", begins), func(t *testing.T) {
			server := newServer(t, true, func(w http.ResponseWriter, r *http.Request) {
				w.(http.Flusher).Flush()
				if begins {
					_, _ = io.WriteString(w, "x")
					w.(http.Flusher).Flush()
				}
				<-r.Context().Done()
			})
			clock := clocktesting.NewFakeClock(time.Now())
			r := build(t, Options{Settings: Settings{Servers: []Server{server.at()}}, Clock: clock})
			response := r.send(http.MethodGet, "/watch")
			if begins {
				if _, err := response.Body.Read(make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
				if clock.HasWaiters() {
					t.Error("a probe is going to be asked for")
				}
				return
			}
			clock.Step(DefaultProbeTimeout / 2)
			eventually.Receive(t, "the kick", r.kicked)
		})
	}
}

func TestAConnectionThatIsSilentByItself(t *testing.T) {
	answer := make(chan struct{})
	server := newServer(t, true, func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/slow" {
			select {
			case answer <- struct{}{}:
			case <-r.Context().Done():
				return
			}
		}
		if len(data) > 0 {
			<-r.Context().Done()
			return
		}
		onePlace("1")(w, r)
	})
	r := build(t, fast(server.at())).run()
	r.await(Online)
	watch := r.watch("1")
	slow, written := make(chan string, 1), make(chan error, 1)
	go func() { slow <- r.text(http.MethodGet, "/slow") }()
	eventually.Receive(t, "the slow request", answer)
	post := r.request(http.MethodPost, "/", strings.NewReader("x"))
	go func() { _, err := r.RoundTrip(post); written <- err }()

	server.link.strand()
	if _, err := watch.Read(make([]byte, 1)); !errors.Is(err, errStranded) || !IsLinkError(err) {
		t.Errorf("the watch ended with %v", err)
	}
	eventually.Receive(t, "the slow request to come again", answer)
	if got := eventually.Receive(t, "its answer", slow); got != "1" {
		t.Errorf("the slow request: %q", got)
	}
	if err := eventually.Receive(t, "the write", written); !errors.Is(err, errStranded) || !MayHaveArrived(err) {
		t.Errorf("the write ended with %v", err)
	}
	r.watch("1")
	for _, s := range r.states() {
		if s == Offline {
			t.Errorf("offline though the server was there: %v", r.states())
		}
	}
}

func TestAConnectionThatSaysSomethingIsNotStranded(t *testing.T) {
	say := make(chan struct{})
	server := newServer(t, true, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		if r.URL.Path == "/watch" {
			<-say
		}
		_, _ = io.WriteString(w, "late")
	})
	r := build(t, fast(server.at()))
	response := r.send(http.MethodGet, "/watch")
	for used := range r.candidate(0).conns {
		used.quiet.Store(true) // a probe was sent, and given up
		r.candidate(0).givenUp(used)
	}
	close(say)
	got, err := io.ReadAll(response.Body)
	r.candidate(0).probed(nil)
	if err != nil || string(got) != "late" || r.text(http.MethodGet, "/") != "late" || server.link.dials() != 1 {
		t.Errorf("%q, %v, %d connections", got, err, server.link.dials())
	}
}

func TestSlowAnswersAreWaitedForWhileProbesAreAnswered(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			var server *apiServer
			server = newServer(t, v.h2, func(w http.ResponseWriter, r *http.Request) {
				for enough := server.probed() + 12; server.probed() < enough && r.Context().Err() == nil; {
					time.Sleep(time.Millisecond)
				}
				_, _ = io.WriteString(w, "late")
			})
			r := build(t, fast(server.at())).run()
			r.await(Online)
			started := time.Now()
			if got := r.text(http.MethodGet, "/slow"); got != "late" {
				t.Errorf("got %q", got)
			}
			if took := time.Since(started); took < 500*time.Millisecond {
				t.Errorf("it took only %s: that is no test", took)
			}
			if got := r.states(); len(got) != 1 {
				t.Errorf("states %v", got)
			}
		})
	}
}
