package principal

import (
	"crypto/subtle"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"k8s.io/utils/clock"
)

// algorithms are those with which kube-apiserver can sign. `none` and the HMACs
// are not among them, whatever else a library knows.
var algorithms = []string{"RS256", "RS384", "RS512", "ES256", "ES384", "ES512"}

const (
	// DefaultGrace is how long after its expiry a token is accepted: offline
	// nobody can renew it.
	DefaultGrace = 720 * time.Hour

	// DefaultLeeway is how far in the future a token's issue may lie. It is
	// past all reason because it costs nothing: the API server issues tokens
	// that are valid at once, so a signed one from the future says only that
	// this node's clock is behind. Boards without a battery start in 1970.
	DefaultLeeway = 100 * 365 * 24 * time.Hour

	// A believed token is not proved again for so long, or until the keys change.
	believed   = 10 * time.Minute
	cacheLimit = 256
)

var verifications = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "rockpool_principal_verifications_total",
	Help: "Tokens checked while the link was down by result: cached, signature, accepted, own, refused.",
}, []string{"result"})

// Keys gives a Verifier the cluster's keys. *Fetcher is one.
type Keys interface {
	Keys() *KeySet // nil = none are known
	Refresh()      // called, and must not block, when a token names an unknown key
}

// Options say what a Verifier believes.
type Options struct {
	Keys Keys
	Own  func() (string, error) // the pod's own token as it is mounted now
	// Accepted knows whom the API server has let in; nil = nobody. Others than the pod's
	// own subject must be among them, and while no keys are known the token, too.
	Accepted *Accepted
	Grace    time.Duration      // after expiry, of a token whose signature is checked; 0 = none
	Leeway   time.Duration      // before validity; 0 = DefaultLeeway
	Clock    clock.PassiveClock // nil = the system's
}

// Verifier proves who calls while the link is down. It is safe for concurrent use.
type Verifier struct {
	o      Options
	parser *jwt.Parser

	mu    sync.Mutex
	cache map[digest]belief
}

// belief is a token that was proved; tokens themselves are not kept.
type belief struct {
	subject     string
	keys        *KeySet // by which it was proved
	from, until time.Time
}

// NewVerifier gives a Verifier; Keys and Own must be set.
func NewVerifier(o Options) *Verifier {
	if o.Leeway <= 0 {
		o.Leeway = DefaultLeeway
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Accepted == nil {
		o.Accepted = NewAccepted(AcceptedOptions{})
	}
	return &Verifier{o: o, parser: newParser(), cache: map[digest]belief{}}
}

// newParser gives a parser that leaves claims to judge: expiry and the rest have different
// leeways.
func newParser() *jwt.Parser {
	return jwt.NewParser(jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation())
}

// unproved reads a token that is signed, by whomever, as kube-apiserver signs.
func unproved(token string) (*jwt.RegisteredClaims, error) {
	claims := &jwt.RegisteredClaims{}
	switch t, _, err := newParser().ParseUnverified(token, claims); {
	case errors.Is(err, jwt.ErrTokenUnverifiable):
		return nil, ErrAlgorithm // one that the library does not know
	case err != nil:
		return nil, ErrNotJWT
	case !slices.Contains(algorithms, t.Method.Alg()):
		return nil, ErrAlgorithm
	case claims.Subject == "":
		return nil, ErrNoSubject
	}
	return claims, nil
}

// Verify gives the subject of a request's token if it is proved, and one that the API
// server has let in before: by a signature of the cluster for the pod's own issuer and
// audience, expired at most for the grace; where the cluster's keys are not known, by
// being a token, not expired, that the API server has let in; or by being the pod's own
// mounted token. Errors are the reasons of this package.
func (v *Verifier) Verify(header http.Header) (subject string, err error) {
	token, subject, err := Subject(header)
	if err != nil {
		verifications.WithLabelValues("refused").Inc()
		return "", err
	}
	now, set, d := v.o.Clock.Now(), v.o.Keys.Keys(), digestOf(token)
	if subject, ok := v.recall(d, set, now); ok {
		verifications.WithLabelValues("cached").Inc()
		return subject, nil
	}
	own, ownErr := v.o.Own()
	grace, result := v.o.Grace, "signature"
	if set == nil {
		grace, result = 0, "accepted"
	}
	claims, err := v.prove(token, d, set)
	if err == nil {
		err = v.judge(claims, grace, own, ownErr, now)
	}
	if ownErr != nil && errors.Is(err, ErrNoKeys) {
		err = ErrNoOwn // the service-account directory comes first
	}
	switch {
	case err == nil:
		v.remember(d, set, claims, grace, now)
		verifications.WithLabelValues(result).Inc()
		return claims.Subject, nil
	case ownErr == nil && subtle.ConstantTimeCompare([]byte(token), []byte(own)) == 1:
		// Not remembered: it holds only for as long as this token is mounted.
		verifications.WithLabelValues("own").Inc()
		return subject, nil
	}
	verifications.WithLabelValues("refused").Inc()
	return "", err
}

// prove checks the signature alone. No error of the library gets out: some of
// them quote the token.
func (v *Verifier) prove(token string, d digest, set *KeySet) (*jwt.RegisteredClaims, error) {
	if set == nil {
		v.o.Keys.Refresh()
		return v.recognize(token, d)
	}
	claims := &jwt.RegisteredClaims{}
	var reason error
	_, err := v.parser.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		var keys jwt.VerificationKeySet
		keys, reason = v.candidates(t, set)
		return keys, reason
	})
	switch {
	case err == nil && claims.Subject == "":
		return nil, ErrNoSubject
	case err == nil:
		return claims, nil
	case reason != nil:
		return nil, reason
	case errors.Is(err, jwt.ErrTokenMalformed):
		return nil, ErrNotJWT
	case errors.Is(err, jwt.ErrTokenUnverifiable):
		return nil, ErrAlgorithm // one that the library does not know
	}
	return nil, ErrSignature
}

// recognize takes the API server's word of before for a token, where there are no keys
// to check its signature with.
func (v *Verifier) recognize(token string, d digest) (*jwt.RegisteredClaims, error) {
	claims, err := unproved(token)
	switch {
	case err != nil:
		return nil, err
	case v.o.Accepted.has(d):
		return claims, nil
	case v.o.Accepted.hasTokens():
		return nil, ErrNotAccepted
	}
	return nil, ErrNoKeys
}

func (v *Verifier) candidates(t *jwt.Token, set *KeySet) (keys jwt.VerificationKeySet, err error) {
	algorithm := t.Method.Alg()
	if !slices.Contains(algorithms, algorithm) {
		return keys, ErrAlgorithm
	}
	// Extensions that must be understood are not (RFC 7515, 4.1.11).
	if _, ok := t.Header["crit"]; ok {
		return keys, ErrAlgorithm
	}
	id, _ := t.Header["kid"].(string)
	for _, k := range set.find(id, algorithm) {
		keys.Keys = append(keys.Keys, k)
	}
	if len(keys.Keys) == 0 {
		v.o.Keys.Refresh()
		return keys, ErrKey
	}
	return keys, nil
}

// judge looks at what a proved token says. Issuer and audience must be those of
// the pod's own token: the cluster also signs tokens for other services, which
// may hand them on.
func (v *Verifier) judge(claims *jwt.RegisteredClaims, grace time.Duration, own string, ownErr error, now time.Time) error {
	if ownErr != nil {
		return ErrNoOwn
	}
	mine := &jwt.RegisteredClaims{}
	if _, _, err := v.parser.ParseUnverified(own, mine); err != nil {
		return ErrNoOwn
	}
	// The pod's own token was issued in the past: a clock that says otherwise is
	// behind, and must not make old tokens young.
	if mine.IssuedAt != nil && mine.IssuedAt.After(now) {
		now = mine.IssuedAt.Time
	}
	latest := now.Add(v.o.Leeway)
	switch {
	case mine.Issuer == "" || claims.Issuer != mine.Issuer:
		return ErrIssuer
	case !shared(claims.Audience, mine.Audience):
		return ErrAudience
	case claims.ExpiresAt != nil && !now.Before(claims.ExpiresAt.Add(grace)):
		if grace == 0 && v.o.Grace != 0 {
			return ErrNoGrace
		}
		return ErrExpired
	case claims.NotBefore != nil && claims.NotBefore.After(latest),
		claims.IssuedAt != nil && claims.IssuedAt.After(latest):
		return ErrNotYet
	case claims.Subject != mine.Subject && !v.o.Accepted.knows(claims.Subject):
		return ErrForeign
	}
	return nil
}

// shared tells whether a token is for the API server: one audience in common
// with the pod's own will do, as for the API server itself. Tokens from Secrets
// have no audience; they are for it if the pod's own is of that kind.
func shared(theirs, mine jwt.ClaimStrings) bool {
	if len(theirs) == 0 || len(mine) == 0 {
		return len(theirs) == len(mine)
	}
	return slices.ContainsFunc(theirs, func(a string) bool { return slices.Contains(mine, a) })
}

func (v *Verifier) recall(d digest, set *KeySet, now time.Time) (string, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	b, ok := v.cache[d]
	if !ok || b.keys != set || now.Before(b.from) || !now.Before(b.until) {
		return "", false
	}
	return b.subject, true
}

func (v *Verifier) remember(d digest, set *KeySet, claims *jwt.RegisteredClaims, grace time.Duration, now time.Time) {
	b := belief{subject: claims.Subject, keys: set, from: now, until: now.Add(believed)}
	if claims.ExpiresAt != nil {
		if end := claims.ExpiresAt.Add(grace); end.Before(b.until) {
			b.until = end
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for old := range v.cache {
		if len(v.cache) < cacheLimit {
			break
		}
		delete(v.cache, old) // any: a pod has few tokens
	}
	v.cache[d] = b
}
