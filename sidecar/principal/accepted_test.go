package principal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	clocktesting "k8s.io/utils/clock/testing"
)

// newAccepted returns an Accepted that has recorded the tokens.
func newAccepted(t *testing.T, keys Keys, tokens ...string) *Accepted {
	t.Helper()
	a := NewAccepted(AcceptedOptions{Keys: keys})
	for _, token := range tokens {
		_, subject, err := Subject(withToken(token))
		if err != nil {
			t.Fatal(err)
		}
		a.Add(withToken(token), subject)
	}
	return a
}

func TestWithoutKeysOnlyAcceptedTokensAreValid(t *testing.T) {
	e, forger := ecSigner("e", 1), ecSigner("e", 99)
	const other = "system:serviceaccount:shop:other"
	mounted := e.sign(t, claims("jti", "mounted"))
	before, otherToken := e.sign(t, claims("jti", "before")), e.sign(t, claims("sub", other))
	lasting := e.sign(t, claims("exp", nil))
	vault := e.sign(t, claims("aud", "vault"))
	elsewhere := e.sign(t, claims("iss", "https://elsewhere"))
	part := strings.Split(before, ".")
	tests := map[string]struct {
		token   string
		keys    *fixedKeys // nil = unknown
		now     time.Time  // zero = today
		none    bool       // no token was accepted
		subject string     // empty = subject
		want    error
	}{
		"an accepted token":                          {token: before},
		"an accepted token of another account":       {token: otherToken, subject: other},
		"an accepted token without an expiry":        {token: lasting, now: today.AddDate(10, 0, 0)},
		"just before it expires":                     {token: before, now: today.Add(time.Hour - time.Second)},
		"the pod's own, which was never used":        {token: mounted},
		"the pod's own when it has expired":          {token: mounted, now: today.AddDate(1, 0, 0)},
		"a slow clock":                               {token: before, now: time.Unix(60, 0)},
		"there is no grace":                          {token: before, now: today.Add(time.Hour), want: ErrNoGrace},
		"a token of the cluster that was never used": {token: e.sign(t, claims("jti", "unknown")), want: ErrNotAccepted},
		"forged":                                         {token: forger.sign(t, claims("jti", "before")), want: ErrNotAccepted},
		"with other claims":                              {token: part[0] + "." + strings.Split(otherToken, ".")[1] + "." + part[2], want: ErrNotAccepted},
		"with a part of its signature":                   {token: part[0] + "." + part[1] + "." + part[2][:40], want: ErrNotAccepted},
		"accepted, but for another audience":             {token: vault, want: ErrAudience},
		"accepted, but of another issuer":                {token: elsewhere, want: ErrIssuer},
		"no token was ever accepted":                     {token: before, none: true, want: ErrNoKeys},
		"with keys, the signature is required":           {token: before, keys: keysOf(t, ecSigner("e", 2)), want: ErrSignature},
		"with keys, every token that they signed":        {token: e.sign(t, claims("jti", "unknown")), keys: keysOf(t, e)},
		"with keys, there is a grace":                    {token: before, keys: keysOf(t, e), now: today.Add(2 * time.Hour)},
		"with keys, the subject must be an accepted one": {token: e.sign(t, claims("sub", "system:serviceaccount:shop:third")), keys: keysOf(t, e), want: ErrForeign},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			accepted := newAccepted(t, nil)
			if !test.none {
				accepted = newAccepted(t, nil, before, otherToken, lasting, vault, elsewhere)
			}
			keys := test.keys
			if keys == nil {
				keys = &fixedKeys{}
			}
			now := test.now
			if now.IsZero() {
				now = today
			}
			v := NewVerifier(Options{
				Keys: keys, Accepted: accepted, Grace: DefaultGrace, Clock: clocktesting.NewFakePassiveClock(now),
				Own: func() (string, error) { return mounted, nil },
			})
			want := test.subject
			if want == "" && test.want == nil {
				want = subject
			}
			for range 2 { // the second time perhaps from the cache
				if got, err := v.Verify(withToken(test.token)); got != want || !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
					t.Errorf("%q, %v, want %q, %v", got, err, want, test.want)
				}
			}
		})
	}
}

func TestAnAcceptedTokenIsRejectedWhenItExpires(t *testing.T) {
	e := ecSigner("e", 1)
	token, own := e.sign(t, claims()), e.sign(t, claims("x", 1))
	fake := clocktesting.NewFakePassiveClock(today.Add(time.Hour - time.Second))
	v := NewVerifier(Options{Keys: &fixedKeys{}, Accepted: newAccepted(t, nil, token), Grace: DefaultGrace, Clock: fake, Own: func() (string, error) { return own, nil }})
	if _, err := v.Verify(withToken(token)); err != nil {
		t.Fatal(err)
	}
	fake.SetTime(today.Add(time.Hour))
	if _, err := v.Verify(withToken(token)); !errors.Is(err, ErrNoGrace) {
		t.Errorf("a second later: %v", err)
	}
}

// runAccepted runs a; stop ends it.
func runAccepted(t *testing.T, a *Accepted) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func TestAcceptedTokensAreLoadedAfterARestart(t *testing.T) {
	e := ecSigner("e", 1)
	own := e.sign(t, claims("x", 1))
	tokens := []string{e.sign(t, claims("jti", "1")), e.sign(t, claims("jti", "2")), e.sign(t, claims("jti", "3"))}
	store, fake := &facts{}, clocktesting.NewFakeClock(today)
	a := NewAccepted(AcceptedOptions{Facts: store, Clock: fake})
	if err := a.Load(t.Context()); err != nil {
		t.Fatalf("without a saved document: %v", err)
	}
	stop := runAccepted(t, a)
	a.Add(withToken(tokens[0]), subject)
	waitForTimer(t, fake)
	for range 100 {
		a.Add(withToken(tokens[0]), subject)
	}
	fake.Step(minInterval)
	a.Add(withToken(tokens[1]), subject) // saved at once, or later together with tokens[2]
	waitForTimer(t, fake)
	a.Add(withToken(tokens[2]), subject) // too early to be saved alone
	stop()
	document := store.values[acceptedFact]
	if store.puts < 2 || store.puts > 3 {
		t.Errorf("written %d times for three tokens in 10 s", store.puts)
	}
	for _, token := range tokens {
		for part := range strings.SplitSeq(token, ".") {
			if strings.Contains(string(document), part) {
				t.Fatalf("a part of a token is saved: %s", document)
			}
		}
	}

	again := NewAccepted(AcceptedOptions{Facts: store})
	if err := again.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	v := NewVerifier(Options{Keys: &fixedKeys{}, Accepted: again, Clock: clocktesting.NewFakePassiveClock(today), Own: func() (string, error) { return own, nil }})
	for _, token := range tokens {
		if got, err := v.Verify(withToken(token)); got != subject || err != nil {
			t.Errorf("after a restart: %q, %v", got, err)
		}
	}
	if _, err := v.Verify(withToken(e.sign(t, claims("jti", "4")))); !errors.Is(err, ErrNotAccepted) {
		t.Errorf("a token that was never accepted: %v", err)
	}
}

func TestTokensAreNotSavedWhileKeysAreKnown(t *testing.T) {
	e := ecSigner("e", 1)
	store := &facts{}
	a := NewAccepted(AcceptedOptions{Keys: keysOf(t, e), Facts: store})
	stop := runAccepted(t, a)
	for n := range 10 {
		a.Add(withToken(e.sign(t, claims("jti", fmt.Sprint(n)))), subject)
	}
	stop()
	if got := string(store.values[acceptedFact]); got != `{"subjects":["`+subject+`"]}` || store.puts != 1 {
		t.Errorf("saved %d times: %s", store.puts, got)
	}
}

func TestOnlyTokensThatCannotBeGuessedAreRecorded(t *testing.T) {
	weak := jwt.NewWithClaims(jwt.SigningMethodHS256, claims())
	guessable, err := weak.SignedString([]byte("hunter2"))
	if err != nil {
		t.Fatal(err)
	}
	unsigned, err := jwt.NewWithClaims(jwt.SigningMethodNone, claims()).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	a := NewAccepted(AcceptedOptions{})
	for _, header := range []http.Header{withToken(guessable), withToken(unsigned), withToken("opaque"), {}} {
		a.Add(header, subject)
	}
	if a.hasTokens() {
		t.Error("a digest is recorded")
	}
}

func TestAcceptedIsBounded(t *testing.T) {
	e := ecSigner("e", 1)
	var tokens []string
	for n := range maxAccepted + 9 {
		tokens = append(tokens, e.sign(t, claims("exp", today.Add(time.Duration(n)*time.Minute).Unix())))
	}
	lasting := e.sign(t, claims("exp", nil))
	a := newAccepted(t, nil, lasting)
	for n, token := range tokens {
		a.Add(withToken(token), fmt.Sprintf("subject-%d", n))
	}
	if len(a.tokens) != maxAccepted || len(a.subjects) != maxAccepted {
		t.Errorf("%d tokens, %d subjects", len(a.tokens), len(a.subjects))
	}
	for n, token := range tokens {
		if want := n >= 10; a.hasToken(digestOf(token)) != want { // the first to expire are dropped
			t.Errorf("token %d is recorded: %v", n, !want)
		}
	}
	if !a.hasToken(digestOf(lasting)) {
		t.Error("the token without an expiry was dropped")
	}
}

func TestAcceptedTokensSurviveAFailingDisk(t *testing.T) {
	e := ecSigner("e", 1)
	store, fake := &facts{err: errors.New("disk full")}, clocktesting.NewFakeClock(today)
	core, logs := observer.New(zap.WarnLevel)
	a := NewAccepted(AcceptedOptions{Facts: store, Clock: fake, Logger: zap.New(core)})
	if err := a.Load(t.Context()); err == nil {
		t.Error("Load returns no error though the store cannot be read")
	}
	stop := runAccepted(t, a)
	token := e.sign(t, claims())
	a.Add(withToken(token), subject)
	waitForTimer(t, fake)
	fake.Step(minInterval)
	waitForTimer(t, fake)
	if logs.Len() != 1 || !a.hasToken(digestOf(token)) {
		t.Errorf("want one line: %v", logs.All())
	}
	store.setErr(nil)
	stop()
	if len(store.values[acceptedFact]) == 0 {
		t.Error("the token is not saved after the disk works again")
	}
}

// The cache may be opened after the first requests.
func TestCallersThatWereAcceptedBeforeALateLoadAreSaved(t *testing.T) {
	e := ecSigner("e", 1)
	before := &facts{}
	first := NewAccepted(AcceptedOptions{Facts: before})
	saved, current := e.sign(t, claims()), e.sign(t, claims("jti", "another"))
	first.Add(withToken(saved), subject)
	if err := first.save(t.Context()); err != nil {
		t.Fatal(err)
	}
	store := &facts{values: before.values}
	a := NewAccepted(AcceptedOptions{Facts: &facts{}})
	a.Add(withToken(current), subject)
	if err := a.save(t.Context()); err != nil { // as a closed cache does
		t.Fatal(err)
	}
	a.o.Facts = store
	stop := runAccepted(t, a)
	if err := a.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	again := NewAccepted(AcceptedOptions{Facts: store})
	if err := again.Load(t.Context()); err != nil || !again.hasToken(digestOf(saved)) || !again.hasToken(digestOf(current)) {
		t.Errorf("%v, %d tokens are saved", err, len(again.tokens))
	}
}

func TestTheSavedTokensAreValidated(t *testing.T) {
	many := acceptedDocument{Tokens: map[digest]int64{}}
	for n := range maxAccepted + 1 {
		many.Tokens[digestOf(fmt.Sprint(n))] = 0
	}
	tooMany, err := json.Marshal(many)
	if err != nil {
		t.Fatal(err)
	}
	for name, document := range map[string]string{
		"a damaged document": "{",
		"a digest cut short": `{"tokens":{"abcd":0}}`,
		"no digest":          `{"tokens":{"` + strings.Repeat("x", 64) + `":0}}`,
		"too many tokens":    string(tooMany),
	} {
		t.Run(name, func(t *testing.T) {
			a := NewAccepted(AcceptedOptions{Facts: &facts{values: map[string][]byte{acceptedFact: []byte(document)}}})
			if err := a.Load(t.Context()); err == nil || a.hasTokens() {
				t.Errorf("got %v, %v", err, a.tokens)
			}
		})
	}
}

func FuzzParseAccepted(f *testing.F) {
	f.Add([]byte(`{"subjects":["` + subject + `"],"tokens":{"` + strings.Repeat("ab", 32) + `":1795352400}}`))
	f.Fuzz(func(t *testing.T, document []byte) {
		parsed, err := parseAccepted(document)
		if err != nil {
			if parsed.Subjects != nil || parsed.Tokens != nil {
				t.Errorf("%v with an error: %v", parsed, err)
			}
			return
		}
		again, err := json.Marshal(parsed)
		if err != nil {
			t.Fatal(err)
		}
		if same, err := parseAccepted(again); err != nil || !maps.Equal(same.Tokens, parsed.Tokens) || !slices.Equal(same.Subjects, parsed.Subjects) {
			t.Errorf("%v is saved as %s: %v", parsed, again, err)
		}
	})
}
