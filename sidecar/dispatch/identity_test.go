package dispatch

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/sidecar/principal"
	"rockpool.dev/tests/eventually"
)

// cluster is an API server that signs tokens, and answers only requests with one.
type cluster struct {
	t       *testing.T
	key     *ecdsa.PrivateKey
	denies  bool              // requests for its JWKS get 403
	answers map[string]string // by path
}

const (
	web, other, third = "system:serviceaccount:shop:web", "system:serviceaccount:shop:other", "system:serviceaccount:shop:third"
	services          = "/api/v1/namespaces/shop/services"
)

func newCluster(t *testing.T) *cluster {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &cluster{t: t, key: key, answers: map[string]string{
		path: list, services: strings.ReplaceAll(list, "ConfigMap", "Service"), "/version": `{"gitVersion":"v1.36.3"}`,
	}}
}

// token returns a token of a subject, with changes to its claims.
func (c *cluster) token(subject string, changes ...string) string {
	claims := jwt.MapClaims{
		"iss": "https://cluster", "aud": []string{"https://cluster"}, "sub": subject,
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}
	for i := 0; i < len(changes); i += 2 {
		claims[changes[i]] = changes[i+1]
	}
	return signed(c.t, jwt.SigningMethodES256, c.key, claims)
}

func signed(t *testing.T, method jwt.SigningMethod, key any, claims jwt.Claims) string {
	t.Helper()
	token := jwt.NewWithClaims(method, claims)
	token.Header["kid"] = "1"
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// answer is the upstreamtest.AnswerFunc of the cluster.
func (c *cluster) answer(r *http.Request) (*http.Response, error) {
	code, body := 404, ""
	token, _, _ := principal.Subject(r.Header)
	_, err := jwt.Parse(token, func(*jwt.Token) (any, error) { return c.key.Public(), nil })
	switch {
	case err != nil:
		code, body = 401, `{"kind":"Status","code":401}`
	case r.URL.Path == "/openid/v1/jwks" && c.denies:
		code, body = 403, `{"kind":"Status","code":403}`
	case r.URL.Path == "/openid/v1/jwks":
		set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: c.key.Public(), KeyID: "1", Algorithm: "ES256", Use: "sig"}}}
		document, err := json.Marshal(set)
		if err != nil {
			return nil, err
		}
		code, body = 200, string(document)
	case c.answers[r.URL.Path] != "":
		code, body = 200, c.answers[r.URL.Path]
	}
	return textResponse(code, body), nil
}

// startVerifier starts the verification of callers from the state that an earlier sidecar left in
// the cache. stop ends it, as the end of the sidecar does.
func (g *harness) startVerifier(own string) (stop func()) {
	g.t.Helper()
	mounted := func() (string, error) { return own, nil }
	keys := principal.NewFetcher(principal.FetcherOptions{Transport: g.link, Token: mounted, Facts: g.db, WaitOnline: g.link.WaitOnline})
	accepted := principal.NewAccepted(principal.AcceptedOptions{Keys: keys, Facts: g.db})
	if err := errors.Join(keys.Load(g.t.Context()), accepted.Load(g.t.Context())); err != nil {
		g.t.Fatal(err)
	}
	options := g.Options
	options.Verifier = principal.NewVerifier(principal.Options{Keys: keys, Accepted: accepted, Own: mounted, Grace: principal.DefaultGrace})
	options.Credentials = principal.NewCredentials(mounted, accepted.Add)
	g.restart(options)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- keys.Run(ctx) }()
	go func() { done <- accepted.Run(ctx) }()
	return func() {
		cancel()
		if err := errors.Join(<-done, <-done); err != nil {
			g.t.Error(err)
		}
	}
}

// doAs sends a request with a token and more headers, in a context as the proxy makes it.
func (g *harness) doAs(authorization, method, url string, headers ...string) (int, metav1.Status) {
	g.t.Helper()
	r := g.request(method, url)
	ctx, cancel := context.WithCancel(WithTrace(r.Context()))
	defer cancel()
	r = r.WithContext(ctx)
	r.Header.Del("Authorization")
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := g.RoundTrip(r)
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return int(status.Status().Code), status.Status()
	}
	if err != nil {
		g.t.Fatal(err)
	}
	if !strings.Contains(url, "watch") {
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			g.t.Fatal(err)
		}
	}
	if err := resp.Body.Close(); err != nil {
		g.t.Fatal(err)
	}
	return resp.StatusCode, metav1.Status{}
}

// requestsFor counts the requests for a path that were sent over the link.
func (g *harness) requestsFor(path string) (n int) {
	for _, r := range g.link.Requests() {
		if r.URL.Path == path {
			n++
		}
	}
	return n
}

func TestOfflineACallerNeedsAVerifiedToken(t *testing.T) {
	for name, denies := range map[string]bool{"the API server publishes its keys": false, "the API server denies access to its keys": true} {
		t.Run(name, func(t *testing.T) {
			g, c := newHarness(t), newCluster(t)
			c.denies = denies
			g.link.SetAnswer(c.answer)
			own, before, theirs, unused := c.token(web), c.token(web, "jti", "before"), c.token(other), c.token(web, "jti", "unused")
			onlyVersion := c.token(web, "jti", "version")
			stop := g.startVerifier(own)
			eventually.True(t, "the keys are requested", func() bool { return g.requestsFor("/openid/v1/jwks") > 0 })
			if !denies {
				eventually.True(t, "the keys are stored", func() bool {
					document, _, err := g.db.Fact(t.Context(), "jwks")
					return err == nil && document != nil
				})
			}
			for target, tokens := range map[string][]string{path: {own, before}, services: {theirs}, "/version": {onlyVersion}} {
				for _, token := range tokens {
					if code, status := g.doAs("Bearer "+token, "GET", target); code != 200 {
						t.Fatalf("online, %s: %d %+v", target, code, status)
					}
				}
			}
			g.link.Cut()

			claims := jwt.MapClaims{}
			if _, _, err := jwt.NewParser().ParseUnverified(own, claims); err != nil {
				t.Fatal(err)
			}
			forger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			part, foreign := strings.Split(own, "."), strings.Split(c.token(third), ".")
			unusedCode := 200
			if denies {
				unusedCode = 401
			}
			tests := []struct {
				name, authorization, target string
				code                        int
			}{
				{"the pod's own token", "Bearer " + own, path, 200},
				{"a used token of the same account", "Bearer " + before, path, 200},
				{"an unused token of the same account", "Bearer " + unused, path, unusedCode},
				{"a token that was used for a document only", "Bearer " + onlyVersion, path, unusedCode},
				{"another account, its own list", "Bearer " + theirs, services, 200},
				{"another account, a list of the pod's", "Bearer " + theirs, path, 503},
				{"another account, an object of the pod's list", "Bearer " + theirs, path + "/a", 503},
				{"another account, an absent object", "Bearer " + theirs, path + "/absent", 503},
				{"the pod's own token, a list of the other account", "Bearer " + own, services, 503},

				{"no token", "", path, 401},
				{"no scheme", own, path, 401},
				{"a password", "Basic YWRtaW46YWRtaW4=", path, 401},
				{"an opaque token", "Bearer 31ada4fd-adec-460c", path, 401},
				{"an account without a recorded request", "Bearer " + c.token(third), path, 401},
				{"the claims of another account under the right signature", "Bearer " + part[0] + "." + foreign[1] + "." + part[2], path, 401},
				{"a forged signature", "Bearer " + signed(t, jwt.SigningMethodES256, forger, claims), path, 401},
				{"the algorithm none", "Bearer " + signed(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims), path, 401},
				{"a shared secret", "Bearer " + signed(t, jwt.SigningMethodHS256, []byte("secret"), claims), path, 401},
				{"another audience", "Bearer " + c.token(web, "aud", "vault"), path, 401},
				{"another issuer", "Bearer " + c.token(web, "iss", "https://elsewhere"), path, 401},
			}
			for _, when := range []string{"offline", "offline, after a restart"} {
				for _, test := range tests {
					code, status := g.doAs(test.authorization, "GET", test.target)
					if code != test.code {
						t.Errorf("%s: %s: %d %s, want %d", when, test.name, code, status.Message, test.code)
					}
					if test.code == 503 && !strings.Contains(status.Message, "not recorded") {
						t.Errorf("%s: %s: %+v", when, test.name, status)
					}
					if test.code != 401 {
						continue
					}
					for _, verb := range [][2]string{{"GET", path + "/a"}, {"GET", watchFrom10}, {"GET", "/version"}, {"GET", "/nowhere"}, {"POST", path}, {"DELETE", path + "/a"}} {
						code, status := g.doAs(test.authorization, verb[0], verb[1])
						if code != 401 || status.Reason != metav1.StatusReasonUnauthorized || status.Status != metav1.StatusFailure || strings.Contains(status.Message, part[2]) {
							t.Errorf("%s: %s: %s %s: %d %+v", when, test.name, verb[0], verb[1], code, status)
						}
					}
				}
				for _, header := range []string{"Impersonate-User", "Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-Scopes"} {
					code, status := g.doAs("Bearer "+own, "GET", path, header, "admin")
					if code != 503 || status.Reason != metav1.StatusReasonServiceUnavailable || !strings.Contains(status.Message, "impersonation") {
						t.Errorf("%s: %s: %d %+v", when, header, code, status)
					}
					if code, _ := g.doAs("", "GET", path, header, "admin"); code != 401 {
						t.Errorf("%s: %s without a token: %d", when, header, code)
					}
				}
				stop()
				stop = g.startVerifier(own)
			}
			stop()
		})
	}
}
