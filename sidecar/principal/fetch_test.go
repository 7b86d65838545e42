package principal

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/sidecar/api/origin"
)

// server is a transport that answers as an API server. asked receives a value for each request.
type server struct {
	mu      sync.Mutex
	answer  func() (*http.Response, error)
	request *http.Request
	asked   chan struct{}
}

func newServer() *server { return &server{asked: make(chan struct{}, 100)} }

func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.request = r
	defer func() { s.asked <- struct{}{} }()
	return s.answer()
}

func (s *server) respondWith(status int, body []byte) {
	s.respond(status, http.Header{origin.AuditID: {"1"}}, body)
}

func (s *server) respond(status int, header http.Header, body []byte) {
	s.set(func() (*http.Response, error) {
		return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(bytes.NewReader(body))}, nil
	})
}

func (s *server) failWith(err error) { s.set(func() (*http.Response, error) { return nil, err }) }

func (s *server) set(answer func() (*http.Response, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// facts is a store in memory.
type facts struct {
	mu     sync.Mutex
	values map[string][]byte
	puts   int
	err    error
}

func (f *facts) Fact(_ context.Context, key string) ([]byte, time.Time, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.values[key], today, f.err
}

func (f *facts) PutFact(_ context.Context, key string, value []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.puts++
	if f.err != nil {
		return f.err
	}
	if f.values == nil {
		f.values = map[string][]byte{}
	}
	f.values[key] = value
	return nil
}

func (f *facts) state() (string, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return string(f.values[keysFact]), f.puts
}

func (f *facts) setErr(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func ownToken() (string, error) { return "own-token", nil }

func wait(t *testing.T, what string, from <-chan struct{}) {
	t.Helper()
	select {
	case <-from:
	case <-time.After(10 * time.Second):
		t.Fatalf("never: %s", what)
	}
}

func waitForTimer(t *testing.T, fake *clocktesting.FakeClock) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !fake.HasWaiters() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("Run never waits")
		}
	}
}

func hasKey(f *Fetcher, id string) bool {
	set := f.Keys()
	return set != nil && len(set.find(id, "ES256")) > 0
}

// step advances the clock by d. The first minInterval is a step of its own.
func step(t *testing.T, fake *clocktesting.FakeClock, d time.Duration) {
	t.Helper()
	waitForTimer(t, fake)
	fake.Step(minInterval)
	if d > minInterval {
		waitForTimer(t, fake)
		fake.Step(d - minInterval)
	}
}

func runFetcher(t *testing.T, f *Fetcher) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestKeysAreFetchedSavedAndRefreshed(t *testing.T) {
	one, two, three := jwksOf(t, ecSigner("1", 1)), jwksOf(t, ecSigner("2", 2)), jwksOf(t, ecSigner("3", 3))
	s, store := newServer(), &facts{}
	fake := clocktesting.NewFakeClock(today)
	f := NewFetcher(FetcherOptions{Transport: s, Token: ownToken, Facts: store, Clock: fake})
	if err := f.Load(t.Context()); err != nil || f.Keys() != nil {
		t.Fatalf("without a saved document: %v, %v", f.Keys(), err)
	}
	s.respondWith(200, one)
	runFetcher(t, f)

	wait(t, "the first fetch", s.asked)
	waitForTimer(t, fake)
	s.mu.Lock()
	if got := s.request; got.Method != "GET" || got.URL.Path != "/openid/v1/jwks" || got.URL.Scheme != "https" || got.Header.Get("Authorization") != "Bearer own-token" {
		t.Errorf("request %s %s %v", got.Method, got.URL, got.Header)
	}
	s.mu.Unlock()
	if got, puts := store.state(); !hasKey(f, "1") || got != string(one) || puts != 1 {
		t.Errorf("saved %d times: %s", puts, got)
	}

	step(t, fake, DefaultInterval)
	wait(t, "the hourly fetch", s.asked)
	waitForTimer(t, fake)
	if _, puts := store.state(); puts != 1 {
		t.Error("an unchanged document was saved again")
	}

	s.respondWith(200, two)
	f.Refresh()
	f.Refresh() // two calls cause one fetch
	select {
	case <-s.asked:
		t.Error("fetched again within the shortest interval")
	case <-time.After(50 * time.Millisecond):
	}
	fake.Step(minInterval)
	wait(t, "the fetch that Refresh asked for", s.asked)
	waitForTimer(t, fake)
	if got, _ := store.state(); !hasKey(f, "2") || hasKey(f, "1") || got != string(two) {
		t.Errorf("saved %s", got)
	}

	again := NewFetcher(FetcherOptions{Facts: store})
	if err := again.Load(t.Context()); err != nil || !hasKey(again, "2") {
		t.Errorf("after a restart: %v", err)
	}

	// While the disk fails the keys are used but not saved. Saving is retried.
	store.setErr(errors.New("disk full"))
	s.respondWith(200, three)
	step(t, fake, DefaultInterval)
	wait(t, "the fetch with a full disk", s.asked)
	waitForTimer(t, fake)
	if !hasKey(f, "3") {
		t.Error("keys that cannot be saved are not used")
	}
	store.setErr(nil)
	step(t, fake, minInterval)
	wait(t, "the next fetch", s.asked)
	waitForTimer(t, fake)
	if got, _ := store.state(); got != string(three) {
		t.Errorf("saved %s", got)
	}
}

func TestInvalidAnswersDoNotReplaceTheKeys(t *testing.T) {
	good := jwksOf(t, ecSigner("1", 1))
	tests := map[string]struct {
		lay  func(*server)
		want string
	}{
		"the link is down":     {func(s *server) { s.failWith(errors.New("link is down")) }, "link is down"},
		"the cluster denies":   {func(s *server) { s.respondWith(403, []byte("secret body")) }, "status 403; bind the ClusterRole"},
		"a redirect":           {func(s *server) { s.respondWith(302, nil) }, "status 302"},
		"a page":               {func(s *server) { s.respondWith(200, []byte("<html>secret body")) }, "not a JSON document"},
		"a captive portal":     {func(s *server) { s.respond(200, nil, []byte("<html>secret body")) }, "status 200: something on the way"},
		"a gateway denies":     {func(s *server) { s.respond(403, nil, []byte("secret body")) }, "status 403: something on the way"},
		"a gateway's own keys": {func(s *server) { s.respond(200, nil, jwksOf(t, ecSigner("2", 2))) }, "status 200: something on the way"},
		"no keys":              {func(s *server) { s.respondWith(200, []byte(`{"keys":[]}`)) }, "no RSA or EC key"},
		"a document too large": {func(s *server) { s.respondWith(200, bytes.Repeat([]byte(" "), maxDocument+1)) }, "larger than"},
		"a truncated body": {func(s *server) {
			s.set(func() (*http.Response, error) {
				body := io.MultiReader(bytes.NewReader(good), brokenReader{})
				return &http.Response{StatusCode: 200, Header: http.Header{origin.AuditID: {"1"}}, Body: io.NopCloser(body)}, nil
			})
		}, "cable pulled"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s, store := newServer(), &facts{values: map[string][]byte{keysFact: good}}
			fake := clocktesting.NewFakeClock(today)
			core, logs := observer.New(zap.WarnLevel)
			f := NewFetcher(FetcherOptions{Transport: s, Token: ownToken, Facts: store, Clock: fake, Logger: zap.New(core)})
			if err := f.Load(t.Context()); err != nil {
				t.Fatal(err)
			}
			test.lay(s)
			runFetcher(t, f)
			// The pauses double, and fetches never stop.
			for _, gap := range []time.Duration{minInterval, 2 * minInterval, 4 * minInterval} {
				wait(t, "a fetch", s.asked)
				step(t, fake, gap)
			}
			wait(t, "a fetch", s.asked)
			waitForTimer(t, fake)
			if got, puts := store.state(); !hasKey(f, "1") || puts != 0 || got != string(good) {
				t.Errorf("saved %d times: %s", puts, got)
			}
			if logs.Len() != 1 {
				t.Fatalf("want one line: %v", logs.All())
			}
			if got := logs.All()[0].ContextMap()["error"].(string); !strings.Contains(got, test.want) || strings.Contains(got, "secret body") || strings.Contains(got, "own-token") {
				t.Errorf("logged %q, want %q", got, test.want)
			}
		})
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("cable pulled") }

func TestNothingIsFetchedBeforeTheLinkIsUp(t *testing.T) {
	s := newServer()
	s.respondWith(200, jwksOf(t, ecSigner("1", 1)))
	up, waits := make(chan struct{}), make(chan struct{}, 10)
	f := NewFetcher(FetcherOptions{Transport: s, Token: ownToken, Clock: clocktesting.NewFakeClock(today), WaitOnline: func(ctx context.Context) error {
		waits <- struct{}{}
		select {
		case <-up:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}})
	runFetcher(t, f)
	wait(t, "the wait for the link", waits)
	if len(s.asked) != 0 {
		t.Error("fetched while the link is down")
	}
	close(up)
	wait(t, "the first fetch", s.asked)
}

func TestRunEndsWhileTheLinkIsDown(t *testing.T) {
	f := NewFetcher(FetcherOptions{Transport: newServer(), Token: ownToken, WaitOnline: func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}})
	runFetcher(t, f) // its cleanup waits for Run to return
}

// The cache may be opened after the first fetch.
func TestKeysThatWereFetchedBeforeALateLoadAreSaved(t *testing.T) {
	old, current := jwksOf(t, ecSigner("old", 1)), jwksOf(t, ecSigner("current", 2))
	for name, recorded := range map[string][]byte{"nothing": nil, "older keys": old, "the same keys": current} {
		t.Run(name+" was recorded", func(t *testing.T) {
			s := newServer()
			s.respondWith(http.StatusOK, current)
			f := NewFetcher(FetcherOptions{Transport: s, Token: ownToken, Facts: &facts{}})
			if err := f.fetch(t.Context()); err != nil {
				t.Fatal(err)
			}
			store := &facts{values: map[string][]byte{keysFact: recorded}}
			f.o.Facts = store
			if err := f.Load(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got, _ := store.state(); got != string(current) || !bytes.Equal(f.current.Load().document, current) {
				t.Errorf("saved %s", got)
			}
		})
	}
}

func TestTheSavedKeysAreValidated(t *testing.T) {
	tests := map[string]*facts{
		"a damaged document":          {values: map[string][]byte{keysFact: []byte("{")}},
		"a store that cannot be read": {err: errors.New("database is corrupt")},
	}
	for name, store := range tests {
		t.Run(name, func(t *testing.T) {
			f := NewFetcher(FetcherOptions{Facts: store})
			if err := f.Load(t.Context()); err == nil || f.Keys() != nil {
				t.Errorf("got %v, %v", f.Keys(), err)
			}
		})
	}
}
