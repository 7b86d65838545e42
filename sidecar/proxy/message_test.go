package proxy

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func readResponse(t *testing.T, conn net.Conn) *http.Response {
	t.Helper()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

func readStatus(t *testing.T, response *http.Response) metav1.Status {
	t.Helper()
	var status metav1.Status
	if err := json.NewDecoder(response.Body).Decode(&status); err != nil {
		t.Fatalf("the body of %s is no Status: %v", response.Status, err)
	}
	if status.Kind != "Status" || status.APIVersion != "v1" || int(status.Code) != response.StatusCode || status.Status != metav1.StatusFailure {
		t.Errorf("incomplete Status %+v with %s", status, response.Status)
	}
	if got := response.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("content type of a Status is %q", got)
	}
	return status
}

func TestRequestArrivesAsSent(t *testing.T) {
	for _, p := range protocols {
		t.Run("with "+p.name, func(t *testing.T) {
			var got *http.Request
			r := start(t, p.upstream, func(_ http.ResponseWriter, req *http.Request) { got = req }, nil)
			request := r.request(http.MethodGet, "/api/v1/namespaces/a%2Fb/pods?labelSelector=a%3Db;c&x", nil)
			request.Header = http.Header{
				"Authorization":       {"Bearer token"},
				"User-Agent":          {"app/1 (linux)"},
				"Accept":              {"application/vnd.kubernetes.protobuf", "application/json"},
				"Accept-Encoding":     {"deflate"},
				"Te":                  {"trailers"},
				"X-Forwarded-For":     {"10.0.0.1"},
				"Proxy-Authorization": {"Basic secret"},
			}
			if !p.client {
				request.Header["Connection"] = []string{"x-one, X-Two"}
				request.Header["Keep-Alive"] = []string{"timeout=5"}
				request.Header["X-One"] = []string{"1"}
				request.Header["X-Two"] = []string{"2"}
			}
			response := r.do(p.client, request)
			_ = readAll(t, response.Body)
			want := http.Header{
				"Authorization":   {"Bearer token"},
				"User-Agent":      {"app/1 (linux)"},
				"Accept":          {"application/vnd.kubernetes.protobuf", "application/json"},
				"Accept-Encoding": {"gzip"}, // the transport's own
				"Te":              {"trailers"},
				"X-Forwarded-For": {"10.0.0.1"},
			}
			if diff := cmp.Diff(want, got.Header); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
			if want := "/api/v1/namespaces/a%2Fb/pods?labelSelector=a%3Db;c&x"; got.RequestURI != want {
				t.Errorf("target %q, want %q", got.RequestURI, want)
			}
			if x := r.exchange(0); x.Method != "GET" || x.Path != "/api/v1/namespaces/a/b/pods" || x.Query != "labelSelector=a%3Db;c&x" ||
				x.UserAgent != "app/1 (linux)" || x.Status != 200 || x.Err != nil || x.Proto != response.Proto {
				t.Errorf("observed %+v", x)
			}
		})
	}
}

func TestAbsentUserAgentStaysAbsent(t *testing.T) {
	for _, p := range protocols {
		t.Run("with "+p.name, func(t *testing.T) {
			var got http.Header
			r := start(t, p.upstream, func(_ http.ResponseWriter, req *http.Request) { got = req.Header }, nil)
			request := r.request(http.MethodGet, "/", nil)
			request.Header["User-Agent"] = nil
			_ = readAll(t, r.do(p.client, request).Body)
			if values, ok := got["User-Agent"]; ok {
				t.Errorf("user agent %q was added", values)
			}
		})
	}
}

func TestResponseArrivesAsSent(t *testing.T) {
	for _, p := range protocols {
		t.Run("with "+p.name, func(t *testing.T) {
			r := start(t, p.upstream, func(w http.ResponseWriter, _ *http.Request) {
				h := w.Header()
				h["Content-Type"] = nil
				h.Set("Audit-Id", "1")
				h["Warning"] = []string{`299 - "a"`, `299 - "b"`}
				h.Set("Date", "Mon, 01 Jan 2024 00:00:00 GMT")
				h.Set("Proxy-Authenticate", "Basic")
				if !p.upstream {
					h.Set("Keep-Alive", "timeout=5")
					h.Set("Connection", "X-Hop")
					h.Set("X-Hop", "1")
				}
				w.WriteHeader(http.StatusTeapot)
				_, _ = io.WriteString(w, "<html>")
			}, nil)
			response := r.get(p.client, "/")
			if got := readAll(t, response.Body); got != "<html>" || response.StatusCode != http.StatusTeapot {
				t.Errorf("%s %q", response.Status, got)
			}
			want := http.Header{
				"Audit-Id":       {"1"},
				"Warning":        {`299 - "a"`, `299 - "b"`},
				"Date":           {"Mon, 01 Jan 2024 00:00:00 GMT"},
				"Content-Length": {"6"},
			}
			if p.upstream {
				// net/http adds Content-Length to a short response, on HTTP/2 too.
				want.Set("Content-Length", "6")
			}
			if diff := cmp.Diff(want, response.Header); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOnlyUpstreamTrafficIsCompressed(t *testing.T) {
	text := strings.Repeat("a long list of pods ", 10000)
	for _, p := range protocols {
		t.Run("with "+p.name, func(t *testing.T) {
			r := start(t, p.upstream, func(w http.ResponseWriter, req *http.Request) {
				if req.Header.Get("Accept-Encoding") != "gzip" {
					http.Error(w, "no gzip in Accept-Encoding", http.StatusNotAcceptable)
					return
				}
				w.Header().Set("Content-Encoding", "gzip")
				z := gzip.NewWriter(w)
				_, _ = io.WriteString(z, text)
				_ = z.Close()
			}, nil)
			request := r.request(http.MethodGet, "/", nil)
			// Also stops the client from decompressing.
			request.Header.Set("Accept-Encoding", "gzip, deflate")
			response := r.do(p.client, request)
			if got := readAll(t, response.Body); got != text {
				t.Errorf("%s with %d bytes instead of %d in plain", response.Status, len(got), len(text))
			}
			if got := response.Header.Get("Content-Encoding"); got != "" {
				t.Errorf("content encoding %q", got)
			}
		})
	}
}

func TestAClientMayGetWhatUpstreamHasCompressed(t *testing.T) {
	for _, c := range []struct {
		name, path, asks, ranges, want string
	}{
		{"a client that asks for gzip", "/list", "gzip", "", "gzip"},
		{"one that asks for others, too", "/list", "deflate, gzip", "", "gzip"},
		{"one that asks for others", "/list", "br", "", ""},
		{"one that does not ask", "/list", "", "", ""},
		{"for a part", "/list", "gzip", "bytes=0-9", ""},
		{"for an answer that may not be compressed", "/object", "gzip", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, true, func(http.ResponseWriter, *http.Request) {}, func(o *Options) {
				o.Compressed = func(r *http.Request) bool { return r.URL.Path == "/list" }
				o.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
					body := r.Header.Get("Accept-Encoding")
					return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
				})
			})
			request := r.request(http.MethodGet, c.path, nil)
			request.Header.Set("Accept-Encoding", c.asks)
			if c.ranges != "" {
				request.Header.Set("Range", c.ranges)
			}
			if got := readAll(t, r.do(true, request).Body); got != c.want {
				t.Errorf("upstream is asked for %q, want %q", got, c.want)
			}
		})
	}
}

func TestResponsesWithoutBody(t *testing.T) {
	cases := []struct {
		name   string
		method string
		status int
		header http.Header
	}{
		{"HEAD with a length", http.MethodHead, 200, http.Header{"Content-Length": {"1234"}, "Content-Type": {"application/json"}}},
		{"HEAD without a length", http.MethodHead, 200, http.Header{"Content-Type": {"application/json"}}},
		{"304", http.MethodGet, 304, http.Header{"Etag": {`"1"`}}},
		{"204", http.MethodGet, 204, nil},
		{"an empty 200", http.MethodGet, 200, http.Header{"Content-Length": {"0"}}},
		{"an empty 409", http.MethodPut, 409, http.Header{"Content-Length": {"0"}}},
	}
	for _, p := range protocols {
		for _, c := range cases {
			t.Run(c.name+" with "+p.name, func(t *testing.T) {
				r := start(t, p.upstream, func(w http.ResponseWriter, _ *http.Request) {
					for name, values := range c.header {
						w.Header()[name] = values
					}
					w.WriteHeader(c.status)
				}, nil)
				response := r.do(p.client, r.request(c.method, "/", nil))
				if body := readAll(t, response.Body); body != "" || response.StatusCode != c.status {
					t.Errorf("%s %q", response.Status, body)
				}
				response.Header.Del("Date")
				if len(c.header) > 0 {
					if diff := cmp.Diff(c.header, response.Header); diff != "" {
						t.Errorf("header (-want +got):\n%s", diff)
					}
				}
				if x := r.exchange(0); x.Err != nil || x.Status != c.status {
					t.Errorf("observed %d, %v", x.Status, x.Err)
				}
			})
		}
	}
}

func TestTrailersAreForwarded(t *testing.T) {
	for _, p := range protocols {
		for _, announced := range []bool{true, false} {
			t.Run(fmt.Sprintf("announced: %t with %s", announced, p.name), func(t *testing.T) {
				r := start(t, p.upstream, func(w http.ResponseWriter, req *http.Request) {
					_, _ = io.Copy(w, req.Body)
					w.(http.Flusher).Flush()
					w.Header().Set(http.TrailerPrefix+"X-Sum", req.Trailer.Get("X-Client-Sum"))
					if announced {
						w.Header().Set("X-Sum", req.Trailer.Get("X-Client-Sum"))
					}
				}, nil)
				if announced {
					r.upstream.Config.Handler = announce(r.upstream.Config.Handler)
				}
				request := r.request(http.MethodPost, "/", io.NopCloser(strings.NewReader("body")))
				request.Trailer = http.Header{"X-Client-Sum": {"42"}}
				response := r.do(p.client, request)
				if got := readAll(t, response.Body); got != "body" {
					t.Errorf("body %q", got)
				}
				if got := response.Trailer.Get("X-Sum"); got != "42" {
					t.Errorf("trailer %q", response.Trailer)
				}
			})
		}
	}
}

func announce(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		next.ServeHTTP(w, r)
	})
}

func TestInformationalResponses(t *testing.T) {
	for _, p := range protocols {
		t.Run("103 is forwarded with "+p.name, func(t *testing.T) {
			r := start(t, p.upstream, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Link", "</style.css>")
				w.WriteHeader(http.StatusEarlyHints)
				w.Header().Del("Link")
				_, _ = io.WriteString(w, "final")
			}, nil)
			var hints []string
			request := r.request(http.MethodGet, "/", nil)
			request = request.WithContext(httptrace.WithClientTrace(request.Context(), &httptrace.ClientTrace{
				Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
					hints = append(hints, fmt.Sprint(code, " ", header.Get("Link")))
					return nil
				},
			}))
			response := r.do(p.client, request)
			if got := readAll(t, response.Body); got != "final" || response.Header.Get("Link") != "" {
				t.Errorf("%q with link %q", got, response.Header.Get("Link"))
			}
			if diff := cmp.Diff([]string{"103 </style.css>"}, hints); diff != "" {
				t.Errorf("hints (-want +got):\n%s", diff)
			}
		})
		t.Run("100 is upstream's decision with "+p.name, func(t *testing.T) {
			refuse := true
			r := start(t, p.upstream, func(w http.ResponseWriter, req *http.Request) {
				if refuse {
					w.WriteHeader(http.StatusForbidden)
					return
				}
				_, _ = io.Copy(w, req.Body)
			}, nil)
			post := func() (string, bool) {
				sent := false
				request := r.request(http.MethodPost, "/", readerFunc(func() { sent = true }, strings.NewReader("body")))
				request.ContentLength = 4
				request.Header.Set("Expect", "100-continue")
				response := r.do(p.client, request)
				return response.Status[:3] + readAll(t, response.Body), sent
			}
			// net/http's HTTP/2 server hides the client's Expect: there it sends 100 as soon as the
			// transport reads the body.
			if got, sent := post(); got != "403" || sent && !p.client {
				t.Errorf("refused: %q, body sent: %t", got, sent)
			}
			refuse = false
			if got, sent := post(); got != "200body" || !sent {
				t.Errorf("accepted: %q, body sent: %t", got, sent)
			}
		})
	}
}

func readerFunc(before func(), r io.Reader) io.Reader {
	return &hookedReader{before: before, reader: r}
}

type hookedReader struct {
	before func()
	reader io.Reader
}

func (h *hookedReader) Read(p []byte) (int, error) { h.before(); return h.reader.Read(p) }

func TestRequestsWithoutABodyCanBeRetried(t *testing.T) {
	var got *http.Request
	r := start(t, true, func(http.ResponseWriter, *http.Request) {}, func(o *Options) {
		base := o.Transport
		o.Transport = roundTripFunc(func(req *http.Request) (*http.Response, error) {
			got = req
			return base.RoundTrip(req)
		})
	})
	for _, h2 := range []bool{false, true} {
		request := r.request(http.MethodDelete, "/", nil)
		request.Close = true
		_ = readAll(t, r.do(h2, request).Body)
		if got.Body != http.NoBody || got.ContentLength != 0 || got.Close {
			t.Errorf("HTTP/2 client %t: body %T of length %d, close %t", h2, got.Body, got.ContentLength, got.Close)
		}
		// A body of unknown length is not treated as empty.
		_ = readAll(t, r.do(h2, r.request(http.MethodPost, "/", io.NopCloser(strings.NewReader("x")))).Body)
		if got.Body == http.NoBody || got.ContentLength != -1 {
			t.Errorf("HTTP/2 client %t: body %T of length %d", h2, got.Body, got.ContentLength)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
