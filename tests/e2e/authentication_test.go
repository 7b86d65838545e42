package e2e

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// requestToken requests a token of a service account from the API server.
func (s *site) requestToken(account string, audiences ...string) string {
	s.t.Helper()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}
	issued, err := cluster.Client().CoreV1().ServiceAccounts(s.namespace).CreateToken(s.ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return issued.Status.Token
}

// authentication sends offline requests with and without valid tokens.
func authentication(t *testing.T, p *testPod) {
	own := p.token()
	claims := jwt.MapClaims{}
	parsed, _, err := jwt.NewParser().ParseUnverified(own, claims)
	if err != nil {
		t.Fatal(err)
	}
	forge := func(method jwt.SigningMethod, key any) string {
		forged := jwt.NewWithClaims(method, claims)
		forged.Header["kid"] = parsed.Header["kid"]
		text, err := forged.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	part := strings.Split(own, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`))
	root := base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"system:admin","iss":"` + claims["iss"].(string) + `"}`))

	p.site.account("stranger")
	tests := []struct{ name, authorization string }{
		{"no token", ""},
		{"no scheme", own},
		{"an empty token", "Bearer "},
		{"a password", "Basic " + base64.StdEncoding.EncodeToString([]byte("admin:admin"))},
		{"garbage", "Bearer garbage"},
		{"garbage in three parts", "Bearer a.b.c"},
		{"the algorithm none", "Bearer " + forge(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType)},
		{"the algorithm none with a signature", "Bearer " + none + "." + part[1] + "." + part[2]},
		{"a shared secret", "Bearer " + forge(jwt.SigningMethodHS256, []byte("secret"))},
		{"another key with the id of the right one", "Bearer " + forge(jwt.SigningMethodRS256, key)},
		{"other claims with the right signature", "Bearer " + part[0] + "." + root + "." + part[2]},
		{"half a signature", "Bearer " + own[:len(own)-len(part[2])/2]},
		{"another audience", "Bearer " + p.site.requestToken("default", "vault")},
		{"an account that has never sent a request", "Bearer " + p.site.requestToken("stranger")},
	}
	for _, target := range []string{p.site.configMaps(), "/version", "/nowhere"} {
		questions := []question{get(p.site.configMaps())}
		for _, tt := range tests {
			questions = append(questions, with("GET", target, map[string]string{"Authorization": tt.authorization}))
		}
		replies := p.ask(questions...)
		if replies[0].Status != http.StatusOK {
			t.Errorf("the pod's own token: %+v, want it accepted", replies[0])
		}
		for i, r := range replies[1:] {
			if status := r.status(t); r.Status != http.StatusUnauthorized || status.Reason != metav1.StatusReasonUnauthorized || strings.Contains(r.Body, part[2]) {
				t.Errorf("%s is answered with %d %s", tests[i].name, r.Status, r.Body)
			}
		}
	}
}

// noForwardProxy sends requests that only a forward proxy serves.
func noForwardProxy(t *testing.T, p *testPod) {
	replies := p.ask(
		with("CONNECT", "example.com:443", nil),
		with("CONNECT", "203.0.113.10:6443", nil),
		with("GET", "http://203.0.113.10:6443/version", nil),
		with("GET", "https://kubernetes.default.svc/version", nil),
	)
	for i, r := range replies {
		if want := []int{405, 405, 400, 400}[i]; r.Status != want || !strings.Contains(r.status(t).Message, "not a proxy") {
			t.Errorf("request %d: %+v, want %d", i, r, want)
		}
	}
}

// plain speaks HTTP without TLS, and TLS with the system's roots only.
const plain = `
import http.client, os, ssl
host, port = os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"])
conn = http.client.HTTPConnection(host, port, timeout=10)
conn.request("GET", "/version")
answer = conn.getresponse()
print(answer.status, answer.read().decode())
try:
    http.client.HTTPSConnection(host, port, timeout=10, context=ssl.create_default_context()).request("GET", "/version")
except ssl.SSLCertVerificationError as e:
    print(e.reason)
`

func onlyTLS(t *testing.T, p *testPod) {
	result := p.run("/usr/bin/python3", "-c", plain)
	want := "400 Client sent an HTTP request to an HTTPS server.\n\nCERTIFICATE_VERIFY_FAILED\n"
	if result.Stdout != want {
		t.Errorf("%+v, want %q", result, want)
	}
}
