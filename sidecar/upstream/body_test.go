package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

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
			if r.State() != Online { // nothing has failed but this connection
				t.Errorf("the state is %s", r.State())
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
		r.text(http.MethodGet, "/readyz")
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
		r.text(http.MethodGet, "/readyz")
		broken := errors.New("client aborted")
		for _, size := range []int{1, 3 * maxReplay} {
			body := io.MultiReader(strings.NewReader(strings.Repeat("x", size)), failing{broken})
			if _, err := r.RoundTrip(r.request(http.MethodPost, "/", io.NopCloser(body))); !errors.Is(err, broken) || IsLinkError(err) {
				t.Errorf("after %d bytes: %v", size, err)
			}
			if _, err := r.HTTP1().RoundTrip(r.request(http.MethodPost, "/", io.NopCloser(
				io.MultiReader(strings.NewReader(strings.Repeat("x", size)), failing{broken}),
			))); !errors.Is(err, broken) || IsLinkError(err) {
				t.Errorf("over HTTP/1.1 after %d bytes: %v", size, err)
			}
		}
		if r.State() != Online {
			t.Errorf("the state is %s", r.State())
		}
	})
}

// TestABodyOfUnknownLengthIsSentAsItComes: its client may wait for an answer before it goes on.
func TestABodyOfUnknownLengthIsSentAsItComes(t *testing.T) {
	t.Parallel()
	server := newServer(t, true, func(w http.ResponseWriter, r *http.Request) {
		buffer := make([]byte, 1)
		for {
			if _, err := io.ReadFull(r.Body, buffer); err != nil {
				return
			}
			_, _ = w.Write(buffer)
			w.(http.Flusher).Flush()
		}
	})
	r := newHarness(t, fastOptions(server.asServer()))
	body, client := io.Pipe()
	go func() { _, _ = client.Write([]byte("a")) }()
	response, err := r.RoundTrip(r.request(http.MethodPost, "/", body))
	if err != nil {
		t.Fatal(err)
	}
	echo := make([]byte, 1)
	for _, want := range []string{"a", "b", "c"} {
		if want != "a" {
			_, _ = client.Write([]byte(want))
		}
		if _, err := io.ReadFull(response.Body, echo); err != nil || string(echo) != want {
			t.Fatalf("got %q, %v, want %q", echo, err, want)
		}
	}
	_ = client.Close()
	if rest, err := io.ReadAll(response.Body); len(rest) > 0 || err != nil {
		t.Errorf("the end: %q, %v", rest, err)
	}
}

// TestAnUploadThatStallsEndsWithItsConnection: its client sends nothing more, and waits for an answer.
func TestAnUploadThatStallsEndsWithItsConnection(t *testing.T) {
	t.Parallel()
	for _, v := range versions {
		for _, length := range []int64{-1, 3 * maxReplay} {
			t.Run(fmt.Sprintf("of length %d over %s", length, v.name), func(t *testing.T) {
				t.Parallel()
				first := make(chan struct{})
				server := newServer(t, v.h2, func(_ http.ResponseWriter, r *http.Request) {
					_, _ = r.Body.Read(make([]byte, 1))
					close(first)
					_, _ = io.Copy(io.Discard, r.Body)
				})
				r := newHarness(t, fastOptions(server.asServer()))
				body, client := io.Pipe()
				defer client.Close()
				request := r.request(http.MethodPost, "/", body)
				request.ContentLength = length
				failed := make(chan error, 1)
				go func() { _, err := r.RoundTrip(request); failed <- err }()
				_, _ = client.Write([]byte("a"))
				eventually.Receive(t, "the first byte", first)
				server.link.refuse()
				if err := eventually.Receive(t, "the request to fail", failed); !IsLinkError(err) || !MayHaveArrived(err) {
					t.Errorf("got %v", err)
				}
				if _, err := client.Write([]byte("b")); err == nil {
					t.Error("the client's body is left open")
				}
			})
		}
	}
}

// TestAnUploadGoesOnOverANewConnection: the bytes that a dead attempt asked for are not lost.
func TestAnUploadGoesOnOverANewConnection(t *testing.T) {
	source, client := io.Pipe()
	u, err := newUpload(httptest.NewRequest(http.MethodPost, "/", source))
	if err != nil {
		t.Fatal(err)
	}
	defer u.close()
	first := u.begin()
	ended := make(chan error, 1)
	go func() { _, err := first.Read(make([]byte, 10)); ended <- err }()
	eventually.True(t, "the first attempt to wait for the client", func() bool {
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.filling
	})
	_ = first.Close()
	if err := eventually.Receive(t, "the first attempt to end", ended); err == nil {
		t.Error("it goes on")
	}
	second, err := u.again()
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.WriteString(client, "all of it"); _ = client.Close() }()
	if got, err := io.ReadAll(second); string(got) != "all of it" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestCloseCancelsFirst: until then, closing a stream may wait for a dead link.
func TestCloseCancelsFirst(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	body := guardBody(&guardedBody{source: &stuckBody{until: ctx.Done()}, guard: guard{clientCtx: t.Context(), cancel: cancel}})
	closed := make(chan error, 1)
	go func() { closed <- body.Close() }()
	if err := eventually.Receive(t, "Close", closed); err != nil {
		t.Error(err)
	}
}

// stuckBody can be closed only once a channel is.
type stuckBody struct {
	io.Reader
	until <-chan struct{}
}

func (b *stuckBody) Close() error { <-b.until; return nil }

// TestBodiesThatAreKeptHaveABound: many large writes at the same time shall not fill the memory.
func TestBodiesThatAreKeptHaveABound(t *testing.T) {
	request := func(length int) *http.Request {
		return httptest.NewRequest(http.MethodPost, "/", strings.NewReader(strings.Repeat("x", length)))
	}
	var uploads []*upload
	for range maxKept/maxReplay + 3 {
		u, err := newUpload(request(maxReplay))
		if err != nil {
			t.Fatal(err)
		}
		uploads = append(uploads, u)
	}
	if last := uploads[len(uploads)-1]; !last.lost {
		t.Errorf("%d bytes are kept", keptBytes.Load())
	}
	for _, u := range uploads {
		u.close()
		u.close()
	}
	if u, err := newUpload(request(maxReplay)); err != nil || u.lost {
		t.Errorf("after the others have ended: kept: %t, %v", !u.lost, err)
	} else {
		u.close()
	}
	if u, err := newUpload(request(maxReplay + 1)); err != nil || !u.lost {
		t.Errorf("a longer one: kept: %t, %v", !u.lost, err)
	}
}

func TestEOFAfterTheContextEndsIsNotComplete(t *testing.T) {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	cases := []struct {
		name   string
		client context.Context
		closed error // why the connection was closed
		isLink bool
		is     error
	}{
		{"the client cancelled", cancelled, nil, false, context.Canceled},
		{"the connection was closed as silent", context.Background(), errSilent, true, errSilent},
		{"neither", context.Background(), nil, false, io.EOF},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			server := newServer(t, true, nil)
			r := newHarness(t, fastOptions(server.asServer()))
			r.text(http.MethodGet, "/")
			used := r.address(0).all()[0]
			if c.closed != nil {
				used.end(c.closed)
			}
			body := guardBody(&guardedBody{source: io.NopCloser(strings.NewReader("")), guard: guard{
				conn: used, address: r.address(0), clientCtx: c.client, cancel: func() {},
			}})
			for range 2 {
				if _, err := body.Read(make([]byte, 1)); IsLinkError(err) != c.isLink || !errors.Is(err, c.is) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestHowLongAnUploadMayTake(t *testing.T) {
	for _, c := range []struct {
		name string
		u    *upload
		want time.Duration
	}{
		{"no body", nil, 0},
		{"16 KiB", &upload{length: 16 << 10}, 2 * time.Second},
		{"of unknown length, 16 KiB so far", &upload{length: -1, read: 16 << 10}, 2 * time.Second},
		{"of unknown length, nothing so far", &upload{length: -1}, 0},
		{"more than there is", &upload{length: 1 << 62}, longestUpload},
	} {
		if got := c.u.duration(); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
