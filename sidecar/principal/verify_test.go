package principal

import (
	"crypto/elliptic"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	clocktesting "k8s.io/utils/clock/testing"
)

func TestVerify(t *testing.T) {
	r, e := rsaSigner("r"), ecSigner("e", 1)
	e3 := curveSigner("e3", elliptic.P384(), jwt.SigningMethodES384)
	e5 := curveSigner("e5", elliptic.P521(), jwt.SigningMethodES512)
	forger := ecSigner("e", 99) // another key under the name of the cluster's key
	mounted := r.sign(t, claims())

	hmac := func(secret []byte) string {
		token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims())
		token.Header["kid"] = "r"
		signed, err := token.SignedString(secret)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	unsigned, err := jwt.NewWithClaims(jwt.SigningMethodNone, claims()).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	parts := func(token string) []string { return strings.Split(token, ".") }
	valid := e.sign(t, claims())
	const admin = "system:serviceaccount:kube-system:admin"
	other := e.sign(t, claims("sub", admin))

	tests := map[string]struct {
		token   string
		own     string // empty = mounted
		noOwn   bool
		noKeys  bool
		now     time.Time // zero = today
		subject string    // empty = subject
		known   string    // another subject that the API server has accepted
		want    error
		asks    bool // calls Refresh
	}{
		"RSA":                       {token: r.sign(t, claims("exp", today.Add(2*time.Hour).Unix()))},
		"P-256":                     {token: valid},
		"P-384":                     {token: e3.sign(t, claims())},
		"P-521":                     {token: e5.sign(t, claims())},
		"a token that names no key": {token: signer{"", e.method, e.key}.sign(t, claims())},
		"another service account has its own subject": {token: other, subject: admin, known: admin},
		"one audience in common is enough":            {token: e.sign(t, claims("aud", []string{"x", "k3s"}))},
		"expired within the grace":                    {token: valid, now: today.Add(time.Hour + DefaultGrace - time.Second)},
		"a clock that starts in 1970":                 {token: valid, now: time.Unix(60, 0)},
		"issued after the own token, by a fast clock": {token: e.sign(t, claims("nbf", today.AddDate(2, 0, 0).Unix(), "iat", today.AddDate(2, 0, 0).Unix()))},
		"a token from a Secret, as the pod's own": {
			token: r.sign(t, claims("iss", "kubernetes/serviceaccount", "aud", nil, "exp", nil, "iat", nil, "nbf", nil)),
			own:   r.sign(t, claims("iss", "kubernetes/serviceaccount", "aud", nil, "exp", nil, "iat", nil, "nbf", nil, "x", 1)),
		},

		"another service account that was never accepted":        {token: other, want: ErrForeign},
		"another service account than the one that was accepted": {token: other, known: "system:serviceaccount:shop:other", want: ErrForeign},
		"a forged token of an accepted service account":          {token: forger.sign(t, claims("sub", admin)), known: admin, want: ErrSignature},
		"no algorithm while the cluster's keys are unknown":      {token: unsigned, noKeys: true, want: ErrAlgorithm, asks: true},
		"a shared secret while the cluster's keys are unknown":   {token: hmac([]byte("guessed")), noKeys: true, want: ErrAlgorithm, asks: true},
		"no token while the cluster's keys are unknown":          {token: "", noKeys: true, want: ErrNoToken},
		"an opaque token while the cluster's keys are unknown":   {token: "opaque", noKeys: true, want: ErrNotJWT},

		"no token":        {token: "", want: ErrNoToken},
		"an opaque token": {token: "opaque", want: ErrNotJWT},
		"no algorithm":    {token: unsigned, want: ErrAlgorithm},
		"no algorithm, with the signature of another token": {token: unsigned + parts(valid)[2], want: ErrAlgorithm},
		"an HMAC with the public key as its secret":         {token: hmac(jwksOf(t, r)), want: ErrAlgorithm},
		"an unknown algorithm": {
			// The header is {"alg":"XX"}.
			token: "eyJhbGciOiJYWCJ9." + parts(valid)[1] + "." + parts(valid)[2], want: ErrAlgorithm,
		},
		"an extension that must be understood":    {token: e.sign(t, claims(), "crit", "b64"), want: ErrAlgorithm},
		"a key that the cluster does not have":    {token: ecSigner("x", 2).sign(t, claims()), want: ErrKey, asks: true},
		"an algorithm of another curve":           {token: signer{"e3", e.method, e.key}.sign(t, claims()), want: ErrKey, asks: true},
		"a forger's key under the cluster's name": {token: forger.sign(t, claims()), want: ErrSignature},
		"a signature of another token":            {token: parts(other)[0] + "." + parts(other)[1] + "." + parts(valid)[2], want: ErrSignature},
		"an empty signature":                      {token: parts(valid)[0] + "." + parts(valid)[1] + ".", want: ErrSignature},
		"another issuer":                          {token: e.sign(t, claims("iss", "https://elsewhere")), want: ErrIssuer},
		"no issuer":                               {token: e.sign(t, claims("iss", nil)), want: ErrIssuer},
		"another audience":                        {token: e.sign(t, claims("aud", "vault")), want: ErrAudience},
		"no audience":                             {token: e.sign(t, claims("aud", nil)), want: ErrAudience},
		"no subject":                              {token: e.sign(t, claims("sub", nil)), want: ErrNoSubject},
		"expired at the end of the grace":         {token: valid, now: today.Add(time.Hour + DefaultGrace), want: ErrExpired},
		"expired long before the own token was issued, with a slow clock": {
			token: e.sign(t, claims("exp", today.Add(-DefaultGrace-2*time.Hour).Unix())), now: today.Add(-DefaultGrace - 3*time.Hour), want: ErrExpired,
		},
		"beyond the leeway":           {token: e.sign(t, claims("nbf", today.AddDate(101, 0, 0).Unix())), want: ErrNotYet},
		"issued beyond the leeway":    {token: e.sign(t, claims("iat", today.AddDate(101, 0, 0).Unix())), want: ErrNotYet},
		"no keys":                     {token: valid, noKeys: true, want: ErrNoKeys, asks: true},
		"no own token":                {token: valid, noOwn: true, want: ErrNoOwn},
		"neither own token nor keys":  {token: valid, noOwn: true, noKeys: true, want: ErrNoOwn, asks: true},
		"an own token without claims": {token: valid, own: "opaque", want: ErrNoOwn},

		"the own token without keys":     {token: mounted, noKeys: true, asks: true},
		"the own token beyond the grace": {token: mounted, now: today.Add(2 * DefaultGrace)},
		"the own token of an unknown key": {
			token: ecSigner("x", 2).sign(t, claims()), own: "same", asks: true,
		},
		"nearly the own token": {token: mounted[:len(mounted)-4] + "AAAA", noKeys: true, want: ErrNoKeys, asks: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			keys := keysOf(t, r, e, e3, e5)
			if test.noKeys {
				keys.set = nil
			}
			own := test.own
			switch own {
			case "":
				own = mounted
			case "same":
				own = test.token
			}
			now := test.now
			if now.IsZero() {
				now = today
			}
			accepted := NewAccepted(AcceptedOptions{Keys: keysOf(t, e)})
			if test.known != "" {
				accepted.Add(http.Header{}, test.known)
			}
			v := NewVerifier(Options{
				Keys:     keys,
				Accepted: accepted,
				Grace:    DefaultGrace,
				Clock:    clocktesting.NewFakePassiveClock(now),
				Own: func() (string, error) {
					if test.noOwn {
						return "", errors.New("gone")
					}
					return own, nil
				},
			})
			for range 2 { // the second time perhaps from the cache
				got, err := v.Verify(withToken(test.token))
				if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
					t.Fatalf("got %v, want %v", err, test.want)
				}
				want := test.subject
				if want == "" {
					want = subject
				}
				if test.want != nil {
					want = ""
				}
				if got != want {
					t.Errorf("subject %q, want %q", got, want)
				}
			}
			if (keys.refreshes > 0) != test.asks {
				t.Errorf("%d calls of Refresh", keys.refreshes)
			}
		})
	}
}

func TestWithoutAGraceExpiredTokensAreRejected(t *testing.T) {
	e := ecSigner("e", 1)
	token, own := e.sign(t, claims()), e.sign(t, claims("x", 1))
	fake := clocktesting.NewFakePassiveClock(today.Add(time.Hour - time.Second))
	v := NewVerifier(Options{Keys: keysOf(t, e), Own: func() (string, error) { return own, nil }, Clock: fake})
	if _, err := v.Verify(withToken(token)); err != nil {
		t.Fatal(err)
	}
	fake.SetTime(today.Add(time.Hour))
	if _, err := v.Verify(withToken(token)); !errors.Is(err, ErrExpired) {
		t.Errorf("got %v; the cached token must expire too", err)
	}
}

func TestVerifiedTokensAreCached(t *testing.T) {
	e := ecSigner("e", 1)
	mounted := e.sign(t, claims())
	token := e.sign(t, claims("jti", "1"))
	checks := 0 // each reads the own token
	keys := keysOf(t, e)
	fake := clocktesting.NewFakePassiveClock(today)
	v := NewVerifier(Options{Keys: keys, Grace: DefaultGrace, Clock: fake, Own: func() (string, error) { checks++; return mounted, nil }})
	steps := []struct {
		name   string
		change func()
		token  string
		checks int
		want   error
	}{
		{"the first time it is verified", func() {}, token, 1, nil},
		{"the second time it is cached", func() {}, token, 0, nil},
		{"after a while it is verified again", func() { fake.SetTime(today.Add(cacheTTL)) }, token, 1, nil},
		{"and cached again", func() {}, token, 0, nil},
		{"a clock that goes back empties the cache", func() { fake.SetTime(today) }, token, 1, nil},
		{"another token is verified too", func() {}, e.sign(t, claims("jti", "2")), 1, nil},
		{"a forged token with the same claims is rejected", func() {}, ecSigner("e", 9).sign(t, claims("jti", "1")), 1, ErrSignature},
		{"and rejected again", func() {}, ecSigner("e", 9).sign(t, claims("jti", "1")), 1, ErrSignature},
		{"other keys empty the cache", func() { keys.set = keysOf(t, ecSigner("e", 2)).set }, token, 1, ErrSignature},
		{"the own token is read each time", func() {}, mounted, 1, nil},
	}
	for _, step := range steps {
		step.change()
		checks = 0
		_, err := v.Verify(withToken(step.token))
		if !errors.Is(err, step.want) || (err == nil) != (step.want == nil) || checks != step.checks {
			t.Errorf("%s: %v, %d checks; want %v, %d", step.name, err, checks, step.want, step.checks)
		}
	}
	before := mounted
	mounted = e.sign(t, claims("jti", "3"))
	if _, err := v.Verify(withToken(mounted)); err != nil {
		t.Errorf("the token that is mounted now: %v", err)
	}
	if _, err := v.Verify(withToken(before)); !errors.Is(err, ErrSignature) {
		t.Errorf("the token that was mounted before: %v", err)
	}
}

func TestTheCacheIsBounded(t *testing.T) {
	e := ecSigner("e", 1)
	own := e.sign(t, claims())
	v := NewVerifier(Options{Keys: keysOf(t, e), Own: func() (string, error) { return own, nil }, Clock: clocktesting.NewFakePassiveClock(today)})
	for n := range cacheLimit + 10 {
		if _, err := v.Verify(withToken(e.sign(t, claims("jti", fmt.Sprint(n))))); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(v.cache); got != cacheLimit {
		t.Errorf("%d tokens are cached, want %d", got, cacheLimit)
	}
}

// FuzzVerify checks that only tokens are accepted that the cluster has signed or, while its keys
// are unknown, has accepted before. It also checks that no error quotes the token.
func FuzzVerify(f *testing.F) {
	e := ecSigner("e", 1)
	mounted := e.sign(f, claims("exp", today.AddDate(1, 0, 0).Unix()))
	seeds := []string{mounted, e.sign(f, claims()), e.sign(f, claims("aud", "vault")), ecSigner("e", 9).sign(f, claims())}
	for _, token := range seeds {
		f.Add("Bearer " + token)
		f.Add("Bearer " + token[:len(token)-1])
		f.Add("Bearer eyJhbGciOiJub25lIn0." + strings.Split(token, ".")[1] + ".")
	}
	signed := map[string]bool{}
	for _, token := range seeds[:2] {
		signed[token[:strings.LastIndex(token, ".")]] = true
	}
	keys, accepted := keysOf(f, e), NewAccepted(AcceptedOptions{})
	for _, token := range seeds[:3] { // the third is for another audience
		accepted.Add(withToken(token), subject)
	}
	verify := func(t *testing.T, keys Keys, authorization string, acceptable func(token string) bool) {
		v := NewVerifier(Options{Keys: keys, Accepted: accepted, Own: func() (string, error) { return mounted, nil }, Clock: clocktesting.NewFakePassiveClock(today)})
		got, err := v.Verify(http.Header{"Authorization": {authorization}})
		if err == nil {
			if got != subject || !acceptable(strings.Fields(authorization)[1]) {
				t.Errorf("accepted as %q: %q", got, authorization)
			}
			return
		}
		if got != "" {
			t.Errorf("subject %q with an error", got)
		}
		for word := range strings.FieldsFuncSeq(authorization, func(r rune) bool { return r == ' ' || r == '.' }) {
			if len(word) > 12 && strings.Contains(err.Error(), word) {
				t.Errorf("the error quotes the token: %v", err)
			}
		}
	}
	f.Fuzz(func(t *testing.T, authorization string) {
		verify(t, keys, authorization, func(token string) bool { return signed[token[:strings.LastIndex(token, ".")]] })
		verify(t, &fixedKeys{}, authorization, func(token string) bool { return slices.Contains(seeds[:2], token) })
	})
}

func BenchmarkVerifyCached(b *testing.B) {
	r := rsaSigner("r")
	token := r.sign(b, claims())
	v := NewVerifier(Options{Keys: keysOf(b, r), Own: func() (string, error) { return token, nil }, Clock: clocktesting.NewFakePassiveClock(today)})
	h := withToken(token)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(h); err != nil {
			b.Fatal(err)
		}
	}
}
