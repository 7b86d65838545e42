package principal

import (
	"crypto/subtle"
	"errors"
	"hash/maphash"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"k8s.io/utils/clock"
)

// algorithms are the algorithms with which kube-apiserver can sign. A library may support others,
// but `none` and the HMACs are never accepted.
var algorithms = []string{"RS256", "RS384", "RS512", "ES256", "ES384", "ES512"}

const (
	// DefaultGrace is how long after its expiry a token is valid: offline it cannot be renewed.
	DefaultGrace = 720 * time.Hour

	// DefaultLeeway is how far in the future a token's time of issue may be. So long a leeway costs
	// nothing: the API server issues tokens that are valid at once, so a signed token from the
	// future only shows that this node's clock is slow. Boards without a battery start in 1970.
	DefaultLeeway = 100 * 365 * 24 * time.Hour

	// cacheTTL is how long a verified token is not verified again, unless the keys change.
	cacheTTL   = 10 * time.Minute
	cacheLimit = 64
)

var verifications = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "rockpool_principal_verifications_total",
	Help: "Tokens checked while the link was down by result: cached, signature, accepted, own, refused.",
}, []string{"result"})

var cachedVerifications = verifications.WithLabelValues("cached")

// Keys provides the cluster's keys to a Verifier. *Fetcher implements it.
type Keys interface {
	Keys() *KeySet // nil = there are none
	Refresh()      // called when a token names an unknown key; must not block
}

// Options say which tokens a Verifier accepts.
type Options struct {
	Keys Keys
	Own  func() (string, error) // returns the pod's own token as currently mounted
	// Accepted has the callers that the API server has accepted; nil = none. A subject other than
	// the pod's own must be among them. While there are no keys, so must the token.
	Accepted *Accepted
	Grace    time.Duration      // after expiry, for a token with a checked signature; 0 = none
	Leeway   time.Duration      // before validity; 0 = DefaultLeeway
	Clock    clock.PassiveClock // nil = the system's clock
}

// Verifier authenticates callers while the link is down. It is safe for concurrent use.
type Verifier struct {
	o      Options
	parser *jwt.Parser

	mu sync.Mutex
	// cache has the tokens that were verified by a hash with seed. They are kept themselves, as
	// Credentials does: the digest of a token costs as much as all else that is done for it.
	cache map[uint64]cachedToken
	seed  maphash.Seed
}

// cachedToken is a token that was verified.
type cachedToken struct {
	token       []byte
	subject     string
	keys        *KeySet // that verified it
	from, until time.Time
}

// NewVerifier returns a Verifier. Keys and Own must be set.
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
	return &Verifier{o: o, parser: newParser(), cache: map[uint64]cachedToken{}, seed: maphash.MakeSeed()}
}

// newParser returns a parser that leaves the claims to checkClaims: they have different leeways.
func newParser() *jwt.Parser {
	return jwt.NewParser(jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation())
}

// parseUnverified reads the claims of a token with an algorithm of kube-apiserver. It does not
// check the signature.
func parseUnverified(token string) (*jwt.RegisteredClaims, error) {
	claims := &jwt.RegisteredClaims{}
	switch t, _, err := newParser().ParseUnverified(token, claims); {
	case errors.Is(err, jwt.ErrTokenUnverifiable):
		return nil, ErrAlgorithm // the library does not know it
	case err != nil:
		return nil, ErrNotJWT
	case !slices.Contains(algorithms, t.Method.Alg()):
		return nil, ErrAlgorithm
	case claims.Subject == "":
		return nil, ErrNoSubject
	}
	return claims, nil
}

// Verify returns the subject of a request's token. The subject must be the pod's own, or one that
// the API server has accepted before. The token must be one of these:
//   - signed with a key of the cluster, for the issuer and audience of the pod's own token, and
//     expired at most for the grace;
//   - while the cluster's keys are unknown, a token that the API server has accepted and that has
//     not expired;
//   - the pod's own mounted token.
//
// The errors are the reasons of this package.
func (v *Verifier) Verify(header http.Header) (subject string, err error) {
	token, err := bearer(header)
	if err != nil {
		verifications.WithLabelValues("refused").Inc()
		return "", err
	}
	now, set := v.o.Clock.Now(), v.o.Keys.Keys()
	if subject, ok := v.lookup(token, set, now); ok {
		cachedVerifications.Inc()
		return subject, nil
	}
	if subject, err = claimedSubject(token); err != nil {
		verifications.WithLabelValues("refused").Inc()
		return "", err
	}
	own, ownErr := v.o.Own()
	grace, result := v.o.Grace, "signature"
	if set == nil {
		grace, result = 0, "accepted"
	}
	claims, err := v.checkSignature(token, set)
	if err == nil {
		err = v.checkClaims(claims, grace, own, ownErr, now)
	}
	if ownErr != nil && errors.Is(err, ErrNoKeys) {
		err = ErrNoOwn // of two errors, the missing service-account directory is the first to fix
	}
	switch {
	case err == nil:
		v.cacheToken(token, set, claims, grace, now)
		verifications.WithLabelValues(result).Inc()
		return claims.Subject, nil
	case ownErr == nil && subtle.ConstantTimeCompare([]byte(token), []byte(own)) == 1:
		// Not cached: it is valid only while this token is mounted.
		verifications.WithLabelValues("own").Inc()
		return subject, nil
	}
	verifications.WithLabelValues("refused").Inc()
	return "", err
}

// checkSignature checks the signature alone. It returns no error of the library, because some of
// them quote the token.
func (v *Verifier) checkSignature(token string, set *KeySet) (*jwt.RegisteredClaims, error) {
	if set == nil {
		v.o.Keys.Refresh()
		return v.checkAccepted(token)
	}
	claims := &jwt.RegisteredClaims{}
	var reason error
	_, err := v.parser.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		var keys jwt.VerificationKeySet
		keys, reason = v.signingKeys(t, set)
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
		return nil, ErrAlgorithm // the library does not know it
	}
	return nil, ErrSignature
}

// checkAccepted accepts a token that the API server has accepted before. It is for clusters whose
// keys are unknown.
func (v *Verifier) checkAccepted(token string) (*jwt.RegisteredClaims, error) {
	claims, err := parseUnverified(token)
	switch {
	case err != nil:
		return nil, err
	case v.o.Accepted.hasToken(digestOf(token)):
		return claims, nil
	case v.o.Accepted.hasTokens():
		return nil, ErrNotAccepted
	}
	return nil, ErrNoKeys
}

func (v *Verifier) signingKeys(t *jwt.Token, set *KeySet) (keys jwt.VerificationKeySet, err error) {
	algorithm := t.Method.Alg()
	if !slices.Contains(algorithms, algorithm) {
		return keys, ErrAlgorithm
	}
	// Critical extensions are not supported (RFC 7515 §4.1.11).
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

// checkClaims checks the claims of a token with a verified signature. Issuer and audience must be
// those of the pod's own token: the cluster also signs tokens for other services, which could reuse
// them here.
func (v *Verifier) checkClaims(
	claims *jwt.RegisteredClaims, grace time.Duration, own string, ownErr error, now time.Time,
) error {
	if ownErr != nil {
		return ErrNoOwn
	}
	ownClaims := &jwt.RegisteredClaims{}
	if _, _, err := v.parser.ParseUnverified(own, ownClaims); err != nil {
		return ErrNoOwn
	}
	// The pod's own token was issued in the past. A clock before that time is slow, and must not
	// make expired tokens valid.
	if ownClaims.IssuedAt != nil && ownClaims.IssuedAt.After(now) {
		now = ownClaims.IssuedAt.Time
	}
	latest := now.Add(v.o.Leeway)
	switch {
	case ownClaims.Issuer == "" || claims.Issuer != ownClaims.Issuer:
		return ErrIssuer
	case !audiencesOverlap(claims.Audience, ownClaims.Audience):
		return ErrAudience
	case claims.ExpiresAt != nil && !now.Before(claims.ExpiresAt.Add(grace)):
		if grace == 0 && v.o.Grace != 0 {
			return ErrNoGrace
		}
		return ErrExpired
	case claims.NotBefore != nil && claims.NotBefore.After(latest),
		claims.IssuedAt != nil && claims.IssuedAt.After(latest):
		return ErrNotYet
	case claims.Subject != ownClaims.Subject && !v.o.Accepted.hasSubject(claims.Subject):
		return ErrForeign
	}
	return nil
}

// audiencesOverlap reports whether a token is for the API server. One audience in common with the
// pod's own token is enough, as it is for the API server itself. Tokens from Secrets have no
// audience; they are for the API server if the pod's own token has none either.
func audiencesOverlap(token, own jwt.ClaimStrings) bool {
	if len(token) == 0 || len(own) == 0 {
		return len(token) == len(own)
	}
	return slices.ContainsFunc(token, func(a string) bool { return slices.Contains(own, a) })
}

func (v *Verifier) lookup(token string, set *KeySet, now time.Time) (string, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	b, ok := v.cache[maphash.String(v.seed, token)]
	if !ok || subtle.ConstantTimeCompare(b.token, []byte(token)) != 1 || b.keys != set || now.Before(b.from) || !now.Before(b.until) {
		return "", false
	}
	return b.subject, true
}

func (v *Verifier) cacheToken(token string, set *KeySet, claims *jwt.RegisteredClaims, grace time.Duration, now time.Time) {
	b := cachedToken{token: []byte(token), subject: claims.Subject, keys: set, from: now, until: now.Add(cacheTTL)}
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
		delete(v.cache, old) // any entry: a pod has few tokens
	}
	v.cache[maphash.String(v.seed, token)] = b
}
