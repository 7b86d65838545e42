// Package principal authenticates callers by their service-account token. The principal is the
// token's subject.
//
// Online the API server authenticates, and Subject only says whose cache a request belongs to.
// Offline a Verifier authenticates, and requires proof: a signature by one of the cluster's keys,
// which a Fetcher records while the link is up. Where the cluster does not publish its keys to
// service accounts, the proof is that the API server has accepted the same token before. Accepted
// records that.
//
//	Fetcher --GET /openid/v1/jwks--> API server        online
//	   |  \--Facts--> store                            saved for a restart offline
//	   |      Accepted <-- tokens that it accepted     online, saved too
//	   v       v
//	Verifier <-- token of a request                    offline
//
// No error or metric contains any part of a token.
package principal

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
)

// maxToken bounds the work that a caller without a valid token can cause. Tokens of the API server
// have about 1 KiB.
const maxToken = 32 << 10

// Reasons to reject a caller. Their text goes into the message of a 401 Status.
var (
	ErrNoToken     = errors.New("no bearer token in the request")
	ErrNotJWT      = errors.New("the bearer token is not a JSON Web Token")
	ErrNoSubject   = errors.New("the token has no subject")
	ErrAlgorithm   = errors.New("the token is signed with an algorithm that the API server does not use")
	ErrNoKeys      = errors.New("the cluster's signing keys were not recorded while the link was up")
	ErrNotAccepted = errors.New("the API server has not accepted this token while the link was up, " +
		"and the cluster's signing keys are unknown")
	ErrKey       = errors.New("the token is signed with a key that is not among the cluster's recorded keys")
	ErrSignature = errors.New("the token's signature is wrong")
	ErrIssuer    = errors.New("the token has another issuer than the pod's own token")
	ErrAudience  = errors.New("the token is for another audience than the API server")
	ErrExpired   = errors.New("the token expired longer ago than the grace for offline use (offline.token-grace)")
	ErrNoGrace   = errors.New("the token has expired, " +
		"and there is no grace because the cluster's signing keys are unknown")
	ErrNotYet  = errors.New("the token is not valid yet")
	ErrForeign = errors.New("the token's service account has not read through this sidecar while the link was up")
	ErrNoOwn   = errors.New("the pod's own token cannot be read, so issuer and audience are unknown")
)

// Subject returns the bearer token of a request and the subject (`sub`) that it claims. It verifies
// nothing: it serves to partition requests that the API server authenticates. The errors are
// ErrNoToken, ErrNotJWT and ErrNoSubject; with the latter two, token is returned too.
func Subject(header http.Header) (token, subject string, err error) {
	token, err = bearer(header)
	if err != nil {
		return "", "", err
	}
	subject, err = claimedSubject(token)
	return token, subject, err
}

// bearer reads the header as the API server does, so that both find the same token: the word after
// "bearer", which may be in upper or lower case. Words after the token are ignored.
func bearer(header http.Header) (string, error) {
	words := strings.SplitN(strings.TrimSpace(header.Get("Authorization")), " ", 3)
	if len(words) < 2 || !strings.EqualFold(words[0], "bearer") || words[1] == "" {
		return "", ErrNoToken
	}
	return words[1], nil
}

// claimedSubject returns the `sub` of a token in compact form (RFC 7515 §7.1).
func claimedSubject(token string) (string, error) {
	if len(token) > maxToken || strings.Count(token, ".") != 2 || strings.ContainsFunc(token, notCompact) {
		return "", ErrNotJWT
	}
	head, rest, _ := strings.Cut(token, ".")
	body, _, _ := strings.Cut(rest, ".")
	var header struct {
		Algorithm string `json:"alg"`
	}
	var claims struct {
		Subject string `json:"sub"`
	}
	if decode(head, &header) != nil || header.Algorithm == "" || decode(body, &claims) != nil {
		return "", ErrNotJWT
	}
	if claims.Subject == "" {
		return "", ErrNoSubject
	}
	return claims.Subject, nil
}

// AccountUID returns the UID of the token's service account, from the claims of a bound token or of
// a token from a Secret. It is empty if the token has none. Nothing is verified.
func AccountUID(token string) string {
	claims := uidsOf(token)
	return cmp.Or(claims.Bound.Account.UID, claims.Secret)
}

// PodUID returns the UID of the pod that the token is bound to. It is empty if the token has none.
// Nothing is verified.
func PodUID(token string) string { return uidsOf(token).Bound.Pod.UID }

// Pod is the pod that a token is bound to.
type Pod struct{ Namespace, Name, UID string }

// PodOf returns the pod that the token is bound to, and false if the token has none. Nothing is
// verified.
func PodOf(token string) (Pod, bool) {
	bound := uidsOf(token).Bound
	pod := Pod{bound.Namespace, bound.Pod.Name, bound.Pod.UID}
	return pod, pod.Namespace != "" && pod.Name != "" && pod.UID != ""
}

// uidClaims are the claims of a service account's token that have UIDs.
type uidClaims struct {
	Bound struct {
		Namespace string `json:"namespace"`
		Account   object `json:"serviceaccount"`
		Pod       object `json:"pod"`
	} `json:"kubernetes.io"`
	Secret string `json:"kubernetes.io/serviceaccount/service-account.uid"`
}

type object struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

func uidsOf(token string) (claims uidClaims) {
	if _, err := claimedSubject(token); err != nil {
		return claims
	}
	if decode(strings.Split(token, ".")[1], &claims) != nil {
		return uidClaims{}
	}
	return claims
}

// notCompact matches characters that no token contains. Go's base64 would skip newlines.
func notCompact(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
		return false
	}
	return true
}

func decode(segment string, into any) error {
	data, err := base64.RawURLEncoding.Strict().DecodeString(segment)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}
