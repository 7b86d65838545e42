package principal

import (
	"errors"
	"testing"

	clocktesting "k8s.io/utils/clock/testing"
)

// A cluster publishes a new key before it signs with it. It publishes the old key while tokens
// signed with it are valid.
// https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/
func TestSigningKeyRotation(t *testing.T) {
	one, two := ecSigner("1", 1), ecSigner("2", 2)
	mounted := one.sign(t, claims("jti", "mounted"))
	older, newer := one.sign(t, claims("jti", "older")), two.sign(t, claims("jti", "newer"))
	s, store, fake := newServer(), &facts{}, clocktesting.NewFakeClock(today)
	f := NewFetcher(FetcherOptions{Transport: s, Token: ownToken, Facts: store, Clock: fake})
	s.respondWith(200, jwksOf(t, one))
	runFetcher(t, f)
	wait(t, "the first fetch", s.asked)
	waitForTimer(t, fake)
	accepted := NewAccepted(AcceptedOptions{Keys: f})
	v := NewVerifier(Options{Keys: f, Accepted: accepted, Grace: DefaultGrace, Clock: clocktesting.NewFakePassiveClock(today), Own: func() (string, error) { return mounted, nil }})
	expect := func(v *Verifier, when string, want map[string]error) {
		t.Helper()
		for token, want := range want {
			if _, err := v.Verify(withToken(token)); !errors.Is(err, want) || (err == nil) != (want == nil) {
				t.Errorf("%s: %v, want %v", when, err, want)
			}
		}
	}
	expect(v, "before the rotation", map[string]error{mounted: nil, older: nil, newer: ErrKey})

	// The unknown key has caused a fetch, long before the hour is over.
	s.respondWith(200, jwksOf(t, one, two))
	fake.Step(minInterval)
	wait(t, "the fetch that the unknown key causes", s.asked)
	waitForTimer(t, fake)
	expect(v, "with both keys", map[string]error{mounted: nil, older: nil, newer: nil})

	s.respondWith(200, jwksOf(t, two))
	step(t, fake, DefaultInterval)
	wait(t, "the hourly fetch", s.asked)
	waitForTimer(t, fake)
	expect(v, "when the old key is gone", map[string]error{mounted: nil, older: ErrKey, newer: nil})

	again := NewFetcher(FetcherOptions{Facts: store})
	if err := again.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	v = NewVerifier(Options{Keys: again, Accepted: accepted, Grace: DefaultGrace, Clock: clocktesting.NewFakePassiveClock(today), Own: func() (string, error) { return mounted, nil }})
	expect(v, "after a restart", map[string]error{mounted: nil, older: ErrKey, newer: nil})
}
