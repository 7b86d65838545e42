package proxy

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// discard is a ResponseWriter that keeps nothing.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }

func TestARequestAllocatesLittle(t *testing.T) {
	const text = "an answer"
	transport := roundTripFunc(func(r *http.Request) (*http.Response, error) {
		if r.URL.Path != "/api/v1/namespaces/shop/configmaps/a" || r.URL.RawQuery != "pretty=false" || r.URL.Host != placeholderHost {
			t.Errorf("the transport got %s", r.URL)
		}
		return &http.Response{
			StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}, "Content-Length": {"9"}},
			Body: io.NopCloser(strings.NewReader(text)), ContentLength: int64(len(text)),
		}, nil
	})
	server, err := New(Options{Transport: transport, TLS: &tls.Config{}, Observe: func(Exchange) {}})
	if err != nil {
		t.Fatal(err)
	}
	run := newRun(t.Context())
	handler := run.track(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { server.handle(run, w, r) }))
	request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/namespaces/shop/configmaps/a?pretty=false", http.NoBody)
	url := *request.URL
	w := &discard{header: http.Header{}}
	n := testing.AllocsPerRun(200, func() {
		*request.URL = url // the handler changes it
		clear(w.header)
		handler.ServeHTTP(w, request)
	})
	// Of these, 6 are the transport's, and 11 goproxy's.
	if n > 27 {
		t.Errorf("%.0f allocations, want at most 27", n)
	}
}

func TestWaitingForHandlersEndsWithTheLast(t *testing.T) {
	run := newRun(t.Context())
	begun, end := make(chan struct{}), make(chan struct{})
	handler := run.track(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		begun <- struct{}{}
		<-end
	}))
	serve := func() { handler.ServeHTTP(&discard{}, nil) }
	if !run.wait(t.Context()) {
		t.Error("nobody runs, and the wait has not ended")
	}
	go serve()
	go serve()
	<-begun
	<-begun
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if run.wait(ended) {
		t.Error("two run, and the wait has ended")
	}
	waited := make(chan bool)
	go func() { waited <- run.wait(t.Context()) }()
	end <- struct{}{}
	select {
	case <-waited:
		t.Error("one still runs, and the wait has ended")
	default:
	}
	end <- struct{}{}
	if !<-waited {
		t.Error("the wait has not ended with the last one")
	}
}
