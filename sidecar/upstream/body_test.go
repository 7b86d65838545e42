package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"rockpool.dev/tests/eventually"
)

func TestBodyErrors(t *testing.T) {
	for _, v := range versions {
		t.Run("a broken connection is a link error over "+v.name, func(t *testing.T) {
			server := newServer(t, v.h2, func(w http.ResponseWriter, r *http.Request) {
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			})
			r := newHarness(t, fastOptions(server.asServer()))
			response := r.send(http.MethodGet, "/")
			if r.State() != Online {
				t.Errorf("the state is %s", r.State())
			}
			server.link.refuse()
			if _, err := response.Body.Read(make([]byte, 1)); !IsLinkError(err) {
				t.Errorf("got %v", err)
			}
			if r.State() != Suspect || len(r.probeWanted) != 1 {
				t.Errorf("the state is %s, %d probes wanted", r.State(), len(r.probeWanted))
			}
		})
		t.Run("a client that cancels or closes is not a link error over "+v.name, func(t *testing.T) {
			server := newServer(t, v.h2, func(w http.ResponseWriter, r *http.Request) {
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			})
			r := newHarness(t, fastOptions(server.asServer()))
			ctx, cancel := context.WithCancel(context.Background())
			cancelled, err := r.RoundTrip(r.request(http.MethodGet, "/", nil).WithContext(ctx))
			if err != nil {
				t.Fatal(err)
			}
			defer cancelled.Body.Close()
			cancel()
			if _, err := cancelled.Body.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) || IsLinkError(err) {
				t.Errorf("cancelled: %v", err)
			}
			closed := r.send(http.MethodGet, "/")
			failed := make(chan error, 1)
			go func() { _, err := closed.Body.Read(make([]byte, 1)); failed <- err }()
			_ = closed.Body.Close()
			if err := eventually.Receive(t, "the read", failed); IsLinkError(err) {
				t.Errorf("closed: %v", err)
			}
			if r.State() != Online {
				t.Errorf("the state is %s", r.State())
			}
		})
	}
	t.Run("a stream that the server aborts is not a link error", func(t *testing.T) {
		server := newServer(t, true, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/late" {
				w.(http.Flusher).Flush()
			}
			panic(http.ErrAbortHandler)
		})
		r := newHarness(t, fastOptions(server.asServer()))
		r.event(roundSucceeded, r.linkErrorText)
		if _, err := r.RoundTrip(r.request(http.MethodGet, "/early", nil)); err == nil || IsLinkError(err) {
			t.Errorf("before the header: %v", err)
		}
		response := r.send(http.MethodGet, "/late")
		if _, err := io.ReadAll(response.Body); err == nil || IsLinkError(err) {
			t.Errorf("after the header: %v", err)
		}
		if r.State() != Online {
			t.Errorf("the state is %s", r.State())
		}
	})
	t.Run("an upload that the client aborts is not a link error", func(t *testing.T) {
		server := newServer(t, true, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
		r := newHarness(t, fastOptions(server.asServer()))
		r.event(roundSucceeded, r.linkErrorText)
		broken := errors.New("client aborted")
		body := io.MultiReader(strings.NewReader("x"), failing{broken})
		if _, err := r.RoundTrip(r.request(http.MethodPost, "/", io.NopCloser(body))); !errors.Is(err, broken) || IsLinkError(err) {
			t.Errorf("got %v", err)
		}
		if r.State() != Online {
			t.Errorf("the state is %s", r.State())
		}
	})
}

func TestEOFAfterTheContextEndsIsNotComplete(t *testing.T) {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	ended, interrupt := context.WithCancelCause(context.Background())
	interrupt(interrupted{errors.New("down")})
	cases := []struct {
		name         string
		client, link context.Context
		isLink       bool
		is           error
	}{
		{"the client cancelled", cancelled, context.Background(), false, context.Canceled},
		{"the address went down", context.Background(), ended, true, nil},
		{"neither", context.Background(), context.Background(), false, io.EOF},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newHarness(t, fastOptions(Server{URL: &url.URL{Scheme: "https", Host: "a"}}))
			body := guardBody(io.NopCloser(strings.NewReader("")), &guard{r.Upstream, r.address(0), nil, c.client, c.link, func() {}, func() {}})
			for range 2 {
				if _, err := body.Read(make([]byte, 1)); IsLinkError(err) != c.isLink || c.is != nil && !errors.Is(err, c.is) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
