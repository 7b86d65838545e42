package token

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/write"
)

const (
	path     = "/api/v1/namespaces/shop/serviceaccounts/web/token"
	asJSON   = "application/json"
	asBinary = "application/vnd.kubernetes.protobuf"
	vault    = `{"spec":{"audiences":["vault","other"],"expirationSeconds":3600,"boundObjectRef":{"kind":"Pod","apiVersion":"v1","name":"web-1","uid":"u"}}}`
)

var start = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

type harness struct {
	*Tokens
	t     *testing.T
	clock *clocktesting.FakePassiveClock
}

func newHarness(t *testing.T) *harness {
	c := clocktesting.NewFakePassiveClock(start)
	return &harness{New(Options{Clock: c}), t, c}
}

func (g *harness) request(url, contentType, accept, body string) write.Request {
	g.t.Helper()
	r := httptest.NewRequest("POST", url, nil)
	r.Header.Set("Accept", accept)
	info := request.Parse(r)
	if !g.Handles(&info) {
		g.t.Fatalf("%s is not handled", url)
	}
	return write.Request{Principal: "me", Info: &info, ContentType: contentType, Body: []byte(body)}
}

// issue shows an answer of the API server with a token that lasts an hour by the server's clock.
func (g *harness) issue(q write.Request, token string) {
	g.t.Helper()
	server := g.clock.Now().Add(-100 * 24 * time.Hour) // the node's clock is far ahead
	g.respond(q, http.StatusCreated, server, fmt.Sprintf(`{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1","metadata":{"name":"web","namespace":"shop"},
		"spec":{"audiences":["vault"],"expirationSeconds":3600},"status":{"token":%q,"expirationTimestamp":%q}}`, token, server.Add(time.Hour).Format(time.RFC3339)))
}

func (g *harness) respond(q write.Request, code int, server time.Time, body string) {
	g.t.Helper()
	resp := &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {asJSON}}, Body: io.NopCloser(strings.NewReader(body))}
	if !server.IsZero() {
		resp.Header.Set("Date", server.UTC().Format(http.TimeFormat))
	}
	g.Observe(q, resp)
	if raw, err := io.ReadAll(resp.Body); err != nil || string(raw) != body {
		g.t.Errorf("the client gets %q, %v", raw, err)
	}
}

// offline returns the token of an answer without the link, or why there is none.
func (g *harness) offline(q write.Request) string {
	g.t.Helper()
	answers := g.Answers(q)
	resp, err := g.Accept(g.t.Context(), q)
	if answers != (err == nil) && !strings.Contains(fmt.Sprint(err), "answer as") {
		g.t.Errorf("Answers says %v, Accept %v", answers, err)
	}
	switch {
	case errors.Is(err, errUnknown):
		return "unknown"
	case errors.Is(err, errExpired):
		return "expired"
	case errors.Is(err, write.ErrNeedsServer):
		return "needs server"
	case apierrors.IsBadRequest(err):
		return "bad request"
	case err != nil:
		g.t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusCreated {
		g.t.Fatalf("%d %v", resp.StatusCode, err)
	}
	var o authenticationv1.TokenRequest
	if _, _, err := scheme.Codecs.UniversalDeserializer().Decode(raw, nil, &o); err != nil {
		g.t.Fatal(err)
	}
	return o.Status.Token
}

func TestATokenIsGivenAgainForTheSameQuestionOnly(t *testing.T) {
	var binary strings.Builder
	typed := &authenticationv1.TokenRequest{TypeMeta: metav1.TypeMeta{Kind: kind.Kind, APIVersion: kind.APIVersion}, Spec: authenticationv1.TokenRequestSpec{
		Audiences: []string{"vault", "other"}, BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: "web-1", UID: "u"},
	}}
	if err := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(typed, &binary); err != nil {
		t.Fatal(err)
	}
	edit := func(from, to string) string { return strings.Replace(vault, from, to, 1) }
	for _, tt := range []struct{ name, path, contentType, accept, body, want string }{
		{"the same", path, asJSON, asJSON, vault, "secret"},
		{"in protobuf", path, asBinary, asBinary, binary.String(), "secret"},
		{"with another lifetime", path, asJSON, asJSON, edit("3600", "600"), "secret"},
		{"with the audiences in another order", path, asJSON, asJSON, edit(`"vault","other"`, `"other","vault"`), "secret"},
		{"with kind and metadata", path, asJSON, asJSON, `{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1","metadata":{},` + vault[1:], "secret"},
		{"another audience", path, asJSON, asJSON, edit(`"vault"`, `"bank"`), "unknown"},
		{"fewer audiences", path, asJSON, asJSON, edit(`"vault",`, ""), "unknown"},
		{"no audience", path, asJSON, asJSON, `{}`, "unknown"},
		{"another bound object", path, asJSON, asJSON, edit(`web-1`, `web-2`), "unknown"},
		{"no bound object", path, asJSON, asJSON, `{"spec":{"audiences":["vault","other"]}}`, "unknown"},
		{"a member that is not known here", path, asJSON, asJSON, edit(`"expirationSeconds"`, `"new":true,"expirationSeconds"`), "unknown"},
		{"another service account", strings.Replace(path, "web", "db", 1), asJSON, asJSON, vault, "unknown"},
		{"another namespace", strings.Replace(path, "shop", "bank", 1), asJSON, asJSON, vault, "unknown"},
		{"another kind", path, asJSON, asJSON, `{"kind":"Pod"}`, "bad request"},
		{"no JSON", path, asJSON, asJSON, `{`, "bad request"},
		{"in YAML", path, "application/yaml", asJSON, vault, "secret"},
		{"a client that takes YAML only", path, asJSON, "application/yaml", vault, "secret"},
		{"in another encoding", path, "text/plain", asJSON, vault, "needs server"},
		{"a client that takes text only", path, asJSON, "text/plain", vault, "needs server"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newHarness(t)
			g.issue(g.request(path, asJSON, asJSON, vault), "secret")
			q := g.request(tt.path, tt.contentType, tt.accept, tt.body)
			if got := g.offline(q); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
			q.Principal = "another"
			if got := g.offline(q); got == "secret" {
				t.Error("another caller gets the token")
			}
			q.TooLarge = true
			if got := g.offline(q); got != "needs server" {
				t.Errorf("a request that was not read: %s", got)
			}
		})
	}
}

func TestATokenIsGivenAgainWhileItLasts(t *testing.T) {
	g := newHarness(t)
	q := g.request(path, asJSON, asJSON, vault)
	g.issue(q, "first")
	g.clock.SetTime(start.Add(30 * time.Minute))
	g.issue(q, "second")
	for _, tt := range []struct {
		after time.Duration
		want  string
	}{{30 * time.Minute, "second"}, {89 * time.Minute, "second"}, {89*time.Minute + time.Second, "expired"}, {3 * time.Hour, "expired"}} {
		g.clock.SetTime(start.Add(tt.after))
		if got := g.offline(q); got != tt.want {
			t.Errorf("after %v: %s, want %s", tt.after, got, tt.want)
		}
	}
	// Without the server's time the node's clock counts.
	g.respond(q, http.StatusCreated, time.Time{}, `{"status":{"token":"third","expirationTimestamp":"2024-01-01T04:30:00Z"}}`)
	if got := g.offline(q); got != "third" {
		t.Errorf("a token without a date: %s", got)
	}
}

func TestWhatTheAPIServerRefusesIsForgotten(t *testing.T) {
	for code, want := range map[int]string{400: "unknown", 401: "secret", 403: "unknown", 404: "unknown", 422: "unknown", 429: "secret", 500: "secret", 302: "secret"} {
		g := newHarness(t)
		q := g.request(path, asJSON, asJSON, vault)
		g.issue(q, "secret")
		g.respond(q, code, start, `{"kind":"Status"}`)
		if got := g.offline(q); got != want {
			t.Errorf("after %d: %s, want %s", code, got, want)
		}
	}
	for _, body := range []string{`{`, `{}`, `{"status":{"token":"x"}}`, `{"status":{"expirationTimestamp":"2025-01-01T00:00:00Z"}}`, `{"kind":"Status"}`} {
		g := newHarness(t)
		q := g.request(path, asJSON, asJSON, vault)
		g.respond(q, 201, start, body)
		if got := g.offline(q); got != "unknown" {
			t.Errorf("after %s: %s", body, got)
		}
	}
}

func TestTheNumberOfTokensIsBounded(t *testing.T) {
	g := newHarness(t)
	for i := range 2 * maxTokens {
		g.clock.SetTime(start.Add(time.Duration(i) * time.Second))
		g.issue(g.request(path, asJSON, asJSON, fmt.Sprintf(`{"spec":{"audiences":["a%d"]}}`, i)), "secret")
	}
	if len(g.issued) != maxTokens {
		t.Errorf("%d tokens are kept", len(g.issued))
	}
	for i, want := range map[int]string{0: "unknown", maxTokens - 1: "unknown", maxTokens: "secret", 2*maxTokens - 1: "secret"} {
		if got := g.offline(g.request(path, asJSON, asJSON, fmt.Sprintf(`{"spec":{"audiences":["a%d"]}}`, i))); got != want {
			t.Errorf("token %d: %s, want %s", i, got, want)
		}
	}
}

func TestOnlyRequestsForTokensAreHandled(t *testing.T) {
	g := newHarness(t)
	for _, tt := range []struct {
		method, path, header string
		want                 bool
	}{
		{"POST", path, "", true},
		{"POST", path + "?fieldManager=x", "", true},
		{"POST", path + "?dryRun=All", "", false},
		{"POST", path, "Impersonate-User", false},
		{"GET", path, "", false},
		{"PUT", path, "", false},
		{"POST", strings.TrimSuffix(path, "/token"), "", false},
		{"POST", strings.Replace(path, "v1", "v2", 1), "", false},
		{"POST", strings.Replace(path, "serviceaccounts", "pods", 1), "", false},
	} {
		r := httptest.NewRequest(tt.method, tt.path, nil)
		if tt.header != "" {
			r.Header.Set(tt.header, "x")
		}
		info := request.Parse(r)
		if got := g.Handles(&info); got != tt.want {
			t.Errorf("%s %s %s: %v", tt.method, tt.path, tt.header, got)
		}
	}
}

// FuzzTokens looks for a question that gets the token of another.
func FuzzTokens(f *testing.F) {
	f.Add(asJSON, []byte(vault))
	f.Add(asJSON, []byte(`{"spec":{"audiences":["vault,other"]}}`))
	f.Add(asJSON, []byte(`{"spec":{"audiences":[["vault","other"]]}}`))
	f.Add(asBinary, []byte("k8s\x00"))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		g := newHarness(t)
		g.issue(g.request(path, asJSON, asJSON, vault), "secret")
		q := g.request(path, contentType, asJSON, string(body))
		if resp, err := g.Accept(t.Context(), q); err == nil {
			resp.Body.Close()
			var asked authenticationv1.TokenRequest
			if strings.HasPrefix(contentType, asBinary) {
				return // that encoding is read by package convert, and fuzzed there
			}
			if _, _, err := scheme.Codecs.UniversalDeserializer().Decode([]byte(strings.Replace(string(body), "{", `{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1",`, 1)), nil, &asked); err != nil {
				return // the API server would refuse it
			}
			if ref := asked.Spec.BoundObjectRef; ref == nil || ref.Name != "web-1" || !strings.Contains(strings.Join(asked.Spec.Audiences, ","), "vault") {
				t.Fatalf("%s gets the token", body)
			}
		}
	})
}
