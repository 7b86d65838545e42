package upstream

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"rockpool.dev/tests/eventually"
)

func TestOneAddressIsNeverAskedWhetherItIsReady(t *testing.T) {
	t.Parallel()
	server := newServer(t, true, answerName("1"))
	server.setReady(http.StatusInternalServerError)
	r := newHarness(t, fastOptions(server.asServer()))
	watch := r.watch("1")
	cut := make(chan error, 1)
	go func() { _, err := watch.Read(make([]byte, 1)); cut <- err }()
	for range 20 {
		r.text(http.MethodGet, "/")
		r.lookAround(t.Context())
	}
	if server.probeCount() != 0 || len(cut) != 0 {
		t.Errorf("asked %d times; the watch ended: %t", server.probeCount(), len(cut) != 0)
	}
	if diff := cmp.Diff([]State{Online}, r.states()); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

func TestAnAddressThatIsNotReadyComesAfterTheOthers(t *testing.T) {
	t.Parallel()
	first, second := newServer(t, true, answerName("1")), newServer(t, true, answerName("2"))
	r := newHarness(t, fastOptions(first.asServer(), second.asServer())).run()
	watch := r.watch("1")
	cut := make(chan error, 1)
	go func() { _, err := watch.Read(make([]byte, 1)); cut <- err }()
	first.setReady(http.StatusInternalServerError)
	eventually.True(t, "the second to be preferred", func() bool { return r.text(http.MethodGet, "/") == "2" })
	second.setReady(http.StatusInternalServerError)
	eventually.True(t, "the first to be preferred when neither is ready", func() bool { return r.text(http.MethodGet, "/") == "1" })
	second.setReady(http.StatusUnauthorized) // an API server's answer too
	eventually.True(t, "the second to be ready", func() bool { return r.text(http.MethodGet, "/") == "2" })
	first.setReady(http.StatusOK)
	eventually.True(t, "the first to be preferred again", func() bool { return r.text(http.MethodGet, "/") == "1" })
	if len(cut) != 0 {
		t.Errorf("the watch ended with %v", <-cut)
	}
	if diff := cmp.Diff([]State{Online}, r.states()); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

func TestAddressesThatAreNotUsedAreNotAsked(t *testing.T) {
	first, second := newServer(t, true, answerName("1")), newServer(t, true, answerName("2"))
	r := newHarness(t, fastOptions(first.asServer(), second.asServer()))
	r.lookAround(t.Context())
	r.text(http.MethodGet, "/")
	r.lookAround(t.Context())
	r.lookAround(t.Context())
	if first.probeCount() != 1 || second.probeCount() != 0 || second.link.dials() != 0 {
		t.Errorf("asked %d and %d times", first.probeCount(), second.probeCount())
	}
}

func TestReadinessIsAskedWithTheCurrentToken(t *testing.T) {
	server, other := newServer(t, true, respond("ok")), newServer(t, true, nil)
	options := fastOptions(server.asServer(), other.asServer())
	options.TokenFile = filepath.Join(t.TempDir(), "token")
	r := newHarness(t, options)
	ask := func(want string) {
		t.Helper()
		r.text(http.MethodGet, "/")
		r.lookAround(t.Context())
		server.mu.Lock()
		defer server.mu.Unlock()
		if got := server.probes[len(server.probes)-1]; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	ask("")
	for _, token := range []string{"one", "two"} {
		if err := os.WriteFile(options.TokenFile, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		ask("Bearer " + token)
	}
}
