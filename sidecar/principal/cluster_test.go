package principal

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var today = time.Date(2026, time.November, 22, 12, 0, 0, 0, time.UTC)

const (
	issuer  = "https://kubernetes.default.svc.cluster.local"
	subject = "system:serviceaccount:shop:till"
)

// signer is a key of a cluster.
type signer struct {
	id     string
	method jwt.SigningMethod
	key    crypto.Signer
}

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func rsaSigner(id string) signer {
	return signer{id, jwt.SigningMethodRS256, rsaKey()}
}

// ecSigner returns a signer whose key is the same in each run, so that a fuzzer's corpus may hold
// tokens that it signed.
func ecSigner(id string, n byte) signer {
	secret := make([]byte, 32)
	secret[31] = n
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), secret)
	if err != nil {
		panic(err)
	}
	return signer{id, jwt.SigningMethodES256, key}
}

func curveSigner(id string, curve elliptic.Curve, method jwt.SigningMethod) signer {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		panic(err)
	}
	return signer{id, method, key}
}

func (s signer) sign(t testing.TB, claims jwt.MapClaims, header ...string) string {
	t.Helper()
	token := jwt.NewWithClaims(s.method, claims)
	token.Header["kid"] = s.id
	for i := 0; i < len(header); i += 2 {
		token.Header[header[i]] = header[i+1]
	}
	signed, err := token.SignedString(s.key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// jwksOf encodes keys with another library than the one under test.
func jwksOf(t testing.TB, signers ...signer) []byte {
	t.Helper()
	var set jose.JSONWebKeySet
	for _, s := range signers {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: s.key.Public(), KeyID: s.id, Algorithm: s.method.Alg(), Use: "sig"})
	}
	document, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return document
}

// claims returns the claims of a bound token as the API server issues it, an hour ago, with
// changes: a nil value removes a claim.
func claims(changes ...any) jwt.MapClaims {
	c := jwt.MapClaims{
		"iss": issuer, "sub": subject, "aud": []string{issuer, "k3s"},
		"iat": today.Add(-time.Hour).Unix(), "nbf": today.Add(-time.Hour).Unix(), "exp": today.Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{"namespace": "shop", "serviceaccount": map[string]any{"name": "till"}},
	}
	for i := 0; i < len(changes); i += 2 {
		if name := changes[i].(string); changes[i+1] == nil {
			delete(c, name)
		} else {
			c[name] = changes[i+1]
		}
	}
	return c
}

func withToken(token string) http.Header {
	return http.Header{"Authorization": {"Bearer " + token}}
}

// fixedKeys are keys that do not change. They count calls of Refresh.
type fixedKeys struct {
	set       *KeySet
	refreshes int
}

func (k *fixedKeys) Keys() *KeySet { return k.set }
func (k *fixedKeys) Refresh()      { k.refreshes++ }

func keysOf(t testing.TB, signers ...signer) *fixedKeys {
	t.Helper()
	set, err := ParseKeySet(jwksOf(t, signers...))
	if err != nil {
		t.Fatal(err)
	}
	return &fixedKeys{set: set}
}
