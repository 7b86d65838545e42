package proxy

import (
	"errors"
	"net/http"
	"strings"
	"testing"
)

func TestARequestHasAnID(t *testing.T) {
	for _, test := range []struct {
		name   string
		header http.Header
		want   string // empty: a new one
	}{
		{"a client that names none gets one", http.Header{}, ""},
		{"the client's Audit-ID", http.Header{"Audit-Id": {"6ba7b810-9dad-11d1-80b4-00c04fd430c8"}}, "6ba7b810-9dad-11d1-80b4-00c04fd430c8"},
		{"the client's X-Request-Id", http.Header{"X-Request-Id": {"a.b_c:1"}}, "a.b_c:1"},
		{"the Audit-ID comes first", http.Header{"Audit-Id": {"a"}, "X-Request-Id": {"b"}}, "a"},
		{"an Audit-ID that cannot be taken leaves the X-Request-Id", http.Header{"Audit-Id": {"a b"}, "X-Request-Id": {"b"}}, "b"},
		{"an empty one is none", http.Header{"Audit-Id": {""}}, ""},
		{"a line break is not taken into the log", http.Header{"Audit-Id": {"a\nb"}}, ""},
		{"one of 64 bytes", http.Header{"Audit-Id": {strings.Repeat("a", 64)}}, strings.Repeat("a", 64)},
		{"one of 65 bytes is too long", http.Header{"Audit-Id": {strings.Repeat("a", 65)}}, ""},
		{"letters beyond ASCII are not taken", http.Header{"Audit-Id": {"ä"}}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			id, other := requestID(test.header), requestID(test.header)
			got, again := id.String(), other.String()
			if id.String() != got {
				t.Errorf("%q, and then %q", got, id.String())
			}
			switch {
			case test.want != "" && got != test.want:
				t.Errorf("%q, want %q", got, test.want)
			case test.want == "" && (!validID(got) || got == again || got == test.header.Get("Audit-Id")):
				t.Errorf("%q and %q, want two new ones", got, again)
			}
		})
	}
}

// TestARefusalHasTheIDOfItsLogLine: the header of a refusal leads to the log line. An answer of the
// API server keeps its own.
func TestARefusalHasTheIDOfItsLogLine(t *testing.T) {
	for _, p := range protocols {
		t.Run("with "+p.name, func(t *testing.T) {
			answers := map[string]func(r *http.Request) (*http.Response, error){
				"/refused": func(*http.Request) (*http.Response, error) { return nil, linkDown{} },
				"/broken":  func(*http.Request) (*http.Response, error) { return nil, errors.New("broken") },
				"/served": func(r *http.Request) (*http.Response, error) {
					return &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{"Audit-Id": {"of the server"}}, Body: http.NoBody, Request: r}, nil
				},
			}
			r := start(t, p.upstream, nil, func(o *Options) {
				o.Transport = roundTripFunc(func(r *http.Request) (*http.Response, error) { return answers[r.URL.Path](r) })
			})
			for i, test := range []struct{ path, sent, id, audit string }{
				{"/refused", "", "", ""}, {"/refused", "mine", "mine", ""}, {"/broken", "mine", "mine", ""}, {"/served", "mine", "of the server", "of the server"},
			} {
				request := r.request(http.MethodGet, test.path, nil)
				if test.sent != "" {
					request.Header.Set("Audit-ID", test.sent)
				}
				response := r.do(p.client, request)
				_ = readAll(t, response.Body)
				x, got := r.exchange(i), response.Header.Get("Audit-Id")
				if got == "" || test.id != "" && got != test.id || test.audit == "" && x.ID.String() != got || test.sent != "" && x.ID.String() != test.sent || x.AuditID != test.audit {
					t.Errorf("%s with %q: the answer has %q, the line %q and %q", test.path, test.sent, got, x.ID, x.AuditID)
				}
			}
		})
	}
}

func FuzzARequestIDIsHarmlessInALogAndAHeader(f *testing.F) {
	for _, seed := range []string{"", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "a\r\nSet-Cookie: b", "\x00", "ä", strings.Repeat("a", 65)} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, audit, other string) {
		request := requestID(http.Header{"Audit-Id": {audit}, "X-Request-Id": {other}})
		id := request.String()
		if len(id) == 0 || len(id) > maxID || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
			t.Errorf("%q", id)
		}
	})
}
