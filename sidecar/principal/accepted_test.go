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

// letIn gives what is remembered when the API server has let in tokens of a cluster that
// keeps its keys to itself.
func letIn(t *testing.T, keys Keys, tokens ...string) *Accepted {
	t.Helper()
	a := NewAccepted(AcceptedOptions{Keys: keys})
	for _, token := range tokens {
		_, subject, err := Subject(bearing(token))
		if err != nil {
			t.Fatal(err)
		}
		a.Add(bearing(token), subject)
	}
	return a
}

func TestWithoutKeysTheAPIServersWordOfBeforeCounts(t *testing.T) {
	e, forger := ecSigner("e", 1), ecSigner("e", 99)
	const other = "system:serviceaccount:shop:other"
	mounted := e.sign(t, claims("jti", "mounted"))
	before, theirs := e.sign(t, claims("jti", "before")), e.sign(t, claims("sub", other))
	lasting := e.sign(t, claims("exp", nil))
	vault := e.sign(t, claims("aud", "vault"))
	stranger := e.sign(t, claims("iss", "https://elsewhere"))
	part := strings.Split(before, ".")
	tests := map[string]struct {
		token   string
		keys    *fixedKeys // nil = none are known
		now     time.Time  // zero = today
		none    bool       // nobody was let in
		subject string     // empty = subject
		want    error
	}{
		"a token that was let in":                   {token: before},
		"of another service account":                {token: theirs, subject: other},
		"one that does not expire":                  {token: lasting, now: today.AddDate(10, 0, 0)},
		"just before it expires":                    {token: before, now: today.Add(time.Hour - time.Second)},
		"the pod's own, which never went through":   {token: mounted},
		"the pod's own when it has expired":         {token: mounted, now: today.AddDate(1, 0, 0)},
		"a clock that is behind":                    {token: before, now: time.Unix(60, 0)},
		"there is no grace":                         {token: before, now: today.Add(time.Hour), want: ErrNoGrace},
		"unknown, though the cluster has signed it": {token: e.sign(t, claims("jti", "unknown")), want: ErrNotAccepted},
		"forged":                                       {token: forger.sign(t, claims("jti", "before")), want: ErrNotAccepted},
		"with other claims":                            {token: part[0] + "." + strings.Split(theirs, ".")[1] + "." + part[2], want: ErrNotAccepted},
		"with a part of its signature":                 {token: part[0] + "." + part[1] + "." + part[2][:40], want: ErrNotAccepted},
		"let in, but for another audience":             {token: vault, want: ErrAudience},
		"let in, but of another issuer":                {token: stranger, want: ErrIssuer},
		"unknown where nobody was let in":              {token: before, none: true, want: ErrNoKeys},
		"where keys are known, signatures count":       {token: before, keys: keysOf(t, ecSigner("e", 2)), want: ErrSignature},
		"where keys are known, all that they signed":   {token: e.sign(t, claims("jti", "unknown")), keys: keysOf(t, e)},
		"where keys are known, there is a grace":       {token: before, keys: keysOf(t, e), now: today.Add(2 * time.Hour)},
		"where keys are known, subjects count as well": {token: e.sign(t, claims("sub", "system:serviceaccount:shop:third")), keys: keysOf(t, e), want: ErrForeign},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			accepted := letIn(t, nil)
			if !test.none {
				accepted = letIn(t, nil, before, theirs, lasting, vault, stranger)
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
			for range 2 { // the second time perhaps from memory
				if got, err := v.Verify(bearing(test.token)); got != want || !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
					t.Errorf("%q, %v, want %q, %v", got, err, want, test.want)
				}
			}
		})
	}
}

func TestATokenIsForgottenWhenItExpires(t *testing.T) {
	e := ecSigner("e", 1)
	token, own := e.sign(t, claims()), e.sign(t, claims("x", 1))
	fake := clocktesting.NewFakePassiveClock(today.Add(time.Hour - time.Second))
	v := NewVerifier(Options{Keys: &fixedKeys{}, Accepted: letIn(t, nil, token), Grace: DefaultGrace, Clock: fake, Own: func() (string, error) { return own, nil }})
	if _, err := v.Verify(bearing(token)); err != nil {
		t.Fatal(err)
	}
	fake.SetTime(today.Add(time.Hour))
	if _, err := v.Verify(bearing(token)); !errors.Is(err, ErrNoGrace) {
		t.Errorf("a second later: %v", err)
	}
}

// keeping runs Accepted; stop ends it.
func keeping(t *testing.T, a *Accepted) (stop func()) {
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

func TestWhomTheAPIServerLetInIsKeptOverARestart(t *testing.T) {
	e := ecSigner("e", 1)
	own := e.sign(t, claims("x", 1))
	tokens := []string{e.sign(t, claims("jti", "1")), e.sign(t, claims("jti", "2")), e.sign(t, claims("jti", "3"))}
	kept, fake := &facts{}, clocktesting.NewFakeClock(today)
	a := NewAccepted(AcceptedOptions{Facts: kept, Clock: fake})
	if err := a.Load(t.Context()); err != nil {
		t.Fatalf("nothing was kept, but: %v", err)
	}
	stop := keeping(t, a)
	a.Add(bearing(tokens[0]), subject)
	idle(t, fake)
	for range 100 {
		a.Add(bearing(tokens[0]), subject)
	}
	fake.Step(minGap)
	a.Add(bearing(tokens[1]), subject) // at once, or when the time has come, with the other
	idle(t, fake)
	a.Add(bearing(tokens[2]), subject) // too early for a write of its own
	stop()
	document := kept.values[acceptedFact]
	if kept.puts < 2 || kept.puts > 3 {
		t.Errorf("written %d times for three tokens in 10 s", kept.puts)
	}
	for _, token := range tokens {
		for part := range strings.SplitSeq(token, ".") {
			if strings.Contains(string(document), part) {
				t.Fatalf("a part of a token is kept: %s", document)
			}
		}
	}

	again := NewAccepted(AcceptedOptions{Facts: kept})
	if err := again.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	v := NewVerifier(Options{Keys: &fixedKeys{}, Accepted: again, Clock: clocktesting.NewFakePassiveClock(today), Own: func() (string, error) { return own, nil }})
	for _, token := range tokens {
		if got, err := v.Verify(bearing(token)); got != subject || err != nil {
			t.Errorf("after a restart: %q, %v", got, err)
		}
	}
	if _, err := v.Verify(bearing(e.sign(t, claims("jti", "4")))); !errors.Is(err, ErrNotAccepted) {
		t.Errorf("a token that was never let in: %v", err)
	}
}

func TestTokensAreNotKeptWhereKeysAreKnown(t *testing.T) {
	e := ecSigner("e", 1)
	kept := &facts{}
	a := NewAccepted(AcceptedOptions{Keys: keysOf(t, e), Facts: kept})
	stop := keeping(t, a)
	for n := range 10 {
		a.Add(bearing(e.sign(t, claims("jti", fmt.Sprint(n)))), subject)
	}
	stop()
	if got := string(kept.values[acceptedFact]); got != `{"subjects":["`+subject+`"]}` || kept.puts != 1 {
		t.Errorf("kept %d times: %s", kept.puts, got)
	}
}

func TestOnlyWhatNobodyCanGuessIsRemembered(t *testing.T) {
	weak := jwt.NewWithClaims(jwt.SigningMethodHS256, claims())
	shared, err := weak.SignedString([]byte("hunter2"))
	if err != nil {
		t.Fatal(err)
	}
	unsigned, err := jwt.NewWithClaims(jwt.SigningMethodNone, claims()).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	a := NewAccepted(AcceptedOptions{})
	for _, header := range []http.Header{bearing(shared), bearing(unsigned), bearing("opaque"), {}} {
		a.Add(header, subject)
	}
	if a.hasTokens() {
		t.Error("there is a digest")
	}
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	e := ecSigner("e", 1)
	var tokens []string
	for n := range maxAccepted + 9 {
		tokens = append(tokens, e.sign(t, claims("exp", today.Add(time.Duration(n)*time.Minute).Unix())))
	}
	lasting := e.sign(t, claims("exp", nil))
	a := letIn(t, nil, lasting)
	for n, token := range tokens {
		a.Add(bearing(token), fmt.Sprintf("subject-%d", n))
	}
	if len(a.tokens) != maxAccepted || len(a.subjects) != maxAccepted {
		t.Errorf("%d tokens, %d subjects", len(a.tokens), len(a.subjects))
	}
	for n, token := range tokens {
		if want := n >= 10; a.has(digestOf(token)) != want { // the first to expire make room
			t.Errorf("token %d is remembered: %v", n, !want)
		}
	}
	if !a.has(digestOf(lasting)) {
		t.Error("the token that does not expire has made room")
	}
}

func TestADiskThatFailsLosesNobody(t *testing.T) {
	e := ecSigner("e", 1)
	kept, fake := &facts{err: errors.New("disk full")}, clocktesting.NewFakeClock(today)
	core, logs := observer.New(zap.WarnLevel)
	a := NewAccepted(AcceptedOptions{Facts: kept, Clock: fake, Logger: zap.New(core)})
	if err := a.Load(t.Context()); err == nil {
		t.Error("a store that cannot be read is read")
	}
	stop := keeping(t, a)
	token := e.sign(t, claims())
	a.Add(bearing(token), subject)
	idle(t, fake)
	fake.Step(minGap)
	idle(t, fake)
	if logs.Len() != 1 || !a.has(digestOf(token)) {
		t.Errorf("want one line: %v", logs.All())
	}
	kept.breaks(nil)
	stop()
	if len(kept.values[acceptedFact]) == 0 {
		t.Error("it is not kept when the disk is well again")
	}
}

func TestWhoWasKeptIsChecked(t *testing.T) {
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
		kept, err := parseAccepted(document)
		if err != nil {
			if kept.Subjects != nil || kept.Tokens != nil {
				t.Errorf("%v with an error: %v", kept, err)
			}
			return
		}
		again, err := json.Marshal(kept)
		if err != nil {
			t.Fatal(err)
		}
		if same, err := parseAccepted(again); err != nil || !maps.Equal(same.Tokens, kept.Tokens) || !slices.Equal(same.Subjects, kept.Subjects) {
			t.Errorf("%v is kept as %s: %v", kept, again, err)
		}
	})
}
