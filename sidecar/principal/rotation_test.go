package principal

import (
	"errors"
	"testing"

	clocktesting "k8s.io/utils/clock/testing"
)

// A cluster publishes a new key before it signs with it, and the old one for as long as
// tokens of it are valid.
// https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/
func TestTheClustersSigningKeyIsRotated(t *testing.T) {
	one, two := ecSigner("1", 1), ecSigner("2", 2)
	mounted := one.sign(t, claims("jti", "mounted"))
	older, newer := one.sign(t, claims("jti", "older")), two.sign(t, claims("jti", "newer"))
	s, kept, fake := newServer(), &facts{}, clocktesting.NewFakeClock(today)
	f := NewFetcher(FetcherOptions{Transport: s, Token: ownToken, Facts: kept, Clock: fake})
	s.answers(200, jwksOf(t, one))
	running(t, f)
	wait(t, "the first fetch", s.asked)
	idle(t, fake)
	accepted := NewAccepted(AcceptedOptions{Keys: f})
	v := NewVerifier(Options{Keys: f, Accepted: accepted, Grace: DefaultGrace, Clock: clocktesting.NewFakePassiveClock(today), Own: func() (string, error) { return mounted, nil }})
	believes := func(v *Verifier, when string, want map[string]error) {
		t.Helper()
		for token, want := range want {
			if _, err := v.Verify(bearing(token)); !errors.Is(err, want) || (err == nil) != (want == nil) {
				t.Errorf("%s: %v, want %v", when, err, want)
			}
		}
	}
	believes(v, "before the rotation", map[string]error{mounted: nil, older: nil, newer: ErrKey})

	// The unknown key has asked for a fetch, long before the hour is over.
	s.answers(200, jwksOf(t, one, two))
	fake.Step(minGap)
	wait(t, "the fetch that the unknown key asks for", s.asked)
	idle(t, fake)
	believes(v, "with both keys", map[string]error{mounted: nil, older: nil, newer: nil})

	s.answers(200, jwksOf(t, two))
	step(t, fake, DefaultInterval)
	wait(t, "the hourly fetch", s.asked)
	idle(t, fake)
	believes(v, "when the old key is gone", map[string]error{mounted: nil, older: ErrKey, newer: nil})

	again := NewFetcher(FetcherOptions{Facts: kept})
	if err := again.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	v = NewVerifier(Options{Keys: again, Accepted: accepted, Grace: DefaultGrace, Clock: clocktesting.NewFakePassiveClock(today), Own: func() (string, error) { return mounted, nil }})
	believes(v, "after a restart", map[string]error{mounted: nil, older: ErrKey, newer: nil})
}
