package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

type linkDown struct{}

func (linkDown) Error() string { return "link is down" }
func (linkDown) Status() metav1.Status {
	return metav1.Status{Code: 503, Reason: metav1.StatusReasonServiceUnavailable, Message: "the link is down",
		Details: &metav1.StatusDetails{RetryAfterSeconds: 7}}
}

func TestTransportErrorsBecomeStatus(t *testing.T) {
	cases := []struct {
		name       string
		err        error
		code       int
		message    string
		retryAfter string
	}{
		{"an error with a Status is that Status", fmt.Errorf("dispatch: %w", linkDown{}), 503, "the link is down", "7"},
		{"a timeout is a 504", context.DeadlineExceeded, 504, "the API server did not answer in time: context deadline exceeded", ""},
		{"a timeout of the network is a 504", &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, 504, "the API server did not answer in time: read: i/o timeout", ""},
		{"any other error is a 502", errors.New("connection refused"), 502, "the API server could not be reached: connection refused", ""},
	}
	for _, c := range cases {
		for _, h2 := range []bool{false, true} {
			for _, upgrade := range []bool{false, true} {
				if upgrade && h2 {
					continue
				}
				t.Run(fmt.Sprintf("%s, HTTP/2 client: %t, upgrade: %t", c.name, h2, upgrade), func(t *testing.T) {
					failing := roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, c.err })
					r := start(t, true, nil, func(o *Options) { o.Transport, o.Upgrade = failing, failing })
					request := r.request(http.MethodGet, "/api/v1/pods", nil)
					if upgrade {
						request.Header.Set("Connection", "Upgrade")
						request.Header.Set("Upgrade", "SPDY/3.1")
					}
					response := r.do(h2, request)
					if response.StatusCode != c.code {
						t.Errorf("got %s", response.Status)
					}
					if status := readStatus(t, response); status.Message != c.message {
						t.Errorf("message %q", status.Message)
					}
					if got := response.Header.Get("Retry-After"); got != c.retryAfter {
						t.Errorf("retry after %q", got)
					}
					if x := r.exchange(0); !errors.Is(x.Err, c.err) || x.Status != c.code {
						t.Errorf("observed %d, %v", x.Status, x.Err)
					}
				})
			}
		}
	}
}

func TestAFailureToHEADHasNoBody(t *testing.T) {
	failing := roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, linkDown{} })
	r := start(t, true, nil, func(o *Options) { o.Transport = failing })
	for _, h2 := range []bool{false, true} {
		response := r.do(h2, r.request(http.MethodHead, "/api", nil))
		if body := readAll(t, response.Body); response.StatusCode != 503 || body != "" {
			t.Errorf("%s %q", response.Status, body)
		}
	}
}

func TestAForbiddenBodyIsDropped(t *testing.T) {
	for _, c := range []struct {
		method string
		status int
	}{{http.MethodHead, 200}, {http.MethodGet, 204}, {http.MethodGet, 304}} {
		for _, h2 := range []bool{false, true} {
			r := start(t, true, nil, func(o *Options) {
				o.Transport = roundTripFunc(func(req *http.Request) (*http.Response, error) {
					return &http.Response{StatusCode: c.status, Body: io.NopCloser(strings.NewReader("stray")), Request: req}, nil
				})
			})
			response := r.do(h2, r.request(c.method, "/", nil))
			if body := readAll(t, response.Body); response.StatusCode != c.status || body != "" {
				t.Errorf("%s %q", response.Status, body)
			}
			if x := r.exchange(0); x.Err != nil {
				t.Errorf("%s %d over HTTP/2 %t: observed %v", c.method, c.status, h2, x.Err)
			}
		}
	}
}

func TestThePortIsNotAForwardProxy(t *testing.T) {
	cases := []struct {
		name   string
		text   string
		status int
	}{
		{"CONNECT", "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", 405},
		{"CONNECT to itself", "CONNECT 127.0.0.1:10268 HTTP/1.1\r\nHost: 127.0.0.1:10268\r\n\r\n", 405},
		{"absolute-form http", "GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n", 400},
		{"absolute-form https", "GET https://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n", 400},
		{"absolute-form of another scheme", "GET ftp://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n", 400},
		{"absolute-form upgrade", "GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 400},
		{"asterisk-form", "OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400},
	}
	for _, c := range cases {
		t.Run(c.name+" is refused", func(t *testing.T) {
			asked := false
			r := start(t, true, nil, func(o *Options) {
				o.Transport = roundTripFunc(func(*http.Request) (*http.Response, error) { asked = true; return nil, errors.New("no") })
				o.Upgrade = o.Transport
			})
			response := r.raw(c.text)
			if response.StatusCode != c.status {
				t.Errorf("got %s", response.Status)
			}
			if status := readStatus(t, response); status.Message == "" {
				t.Error("no message")
			}
			if asked {
				t.Error("the request reached the transport")
			}
		})
	}
	t.Run("CONNECT over HTTP/2 is refused", func(t *testing.T) {
		r := start(t, true, nil, nil)
		request := r.request(http.MethodConnect, "/", nil)
		request.Host = "example.com:443"
		if response := r.do(true, request); response.StatusCode != 405 {
			t.Errorf("got %s", response.Status)
		}
	})
	hosts := []string{"example.com", "169.254.169.254", "evil.example:22", ""}
	for _, host := range hosts {
		t.Run(fmt.Sprintf("Host %q does not choose the destination", host), func(t *testing.T) {
			var got *http.Request
			r := start(t, false, func(_ http.ResponseWriter, req *http.Request) { got = req }, func(o *Options) {
				base := o.Transport
				o.Transport = roundTripFunc(func(req *http.Request) (*http.Response, error) {
					if req.Host != placeholderHost || req.URL.Host != placeholderHost {
						t.Errorf("the transport sees host %q, %q", req.Host, req.URL.Host)
					}
					return base.RoundTrip(req)
				})
			})
			response := r.raw("GET //other.example/api?a=http://x HTTP/1.1\r\nHost: " + host + "\r\nX-Forwarded-Host: other.example\r\n\r\n")
			if response.StatusCode != 200 || got == nil || got.RequestURI != "//other.example/api?a=http://x" {
				t.Errorf("%s, upstream got %+v", response.Status, got)
			}
		})
	}
}

func TestFailedHandshakesAndNonTLSDoNotStopTheServer(t *testing.T) {
	r := start(t, true, func(http.ResponseWriter, *http.Request) {}, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	var answer bytes.Buffer
	_, _ = answer.ReadFrom(conn)
	if !strings.HasPrefix(answer.String(), "HTTP/1.0 400") {
		t.Errorf("plain HTTP got %q", answer.String())
	}
	if response := r.get(true, "/"); response.StatusCode != 200 {
		t.Errorf("got %s", response.Status)
	}
}

func TestAStatusIsIndentedForThoseWhoWantIt(t *testing.T) {
	failing := roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, linkDown{} })
	r := start(t, true, nil, func(o *Options) {
		o.Transport, o.Pretty = failing, func(r *http.Request) bool { return r.URL.RawQuery == "pretty=true" }
	})
	for query, want := range map[string]string{"": `{"kind":"Status",`, "?pretty=true": "{\n  \"kind\": \"Status\",\n"} {
		raw, err := io.ReadAll(r.do(true, r.request(http.MethodGet, "/api/v1/pods"+query, nil)).Body)
		if err != nil || !strings.HasPrefix(string(raw), want) {
			t.Errorf("%q: %s %v", query, raw, err)
		}
	}
}
