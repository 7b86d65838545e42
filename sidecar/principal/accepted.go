package principal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
	"k8s.io/utils/clock"
)

const (
	// acceptedFact is the name under which Accepted is kept.
	acceptedFact = "accepted"
	// maxAccepted bounds the subjects, and the tokens, that are remembered. A pod has
	// one or two.
	maxAccepted = 64
)

// digest stands for a token.
type digest [sha256.Size]byte

func digestOf(token string) digest { return sha256.Sum256([]byte(token)) }

// MarshalText gives the digest in hex.
func (d digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText takes what MarshalText gives.
func (d *digest) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(d)) {
		return errors.New("not a SHA-256 in hex")
	}
	_, err := hex.Decode(d[:], text)
	return err
}

// AcceptedOptions say how Accepted is kept.
type AcceptedOptions struct {
	Keys   Keys             // the cluster's; nil = none are known
	Facts  Facts            // nil = it is forgotten at the end
	Clock  clock.WithTicker // nil = the system's
	Logger *zap.Logger      // nil = none
}

// Accepted remembers whom the API server has let in through this sidecar: their
// subjects and, while the cluster's signing keys are not known, their tokens. It is
// safe for concurrent use.
//
// A token is remembered by its SHA-256 and nothing else. The digest needs no key: it
// can only be turned back by guessing the token, and a token ends with a signature
// that nobody can guess (256 bits and more, RFC 7518, 3.3 and 3.4). Nothing that is
// signed in another way is remembered.
type Accepted struct {
	o       AcceptedOptions
	changed chan struct{}

	mu       sync.RWMutex
	subjects map[string]struct{}
	tokens   map[digest]int64 // when each expires, in seconds since 1970, by digest; 0 = never
	dirty    bool             // there is more than Facts holds
}

// NewAccepted does nothing yet: call Load before the first request is answered, and
// Run.
func NewAccepted(o AcceptedOptions) *Accepted {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	return &Accepted{o: o, changed: make(chan struct{}, 1), subjects: map[string]struct{}{}, tokens: map[digest]int64{}}
}

// Add is told of a request that the API server has answered because it believes its
// token, which is of subject. It does not block.
func (a *Accepted) Add(header http.Header, subject string) {
	if !a.knows(subject) {
		a.change(func() {
			for other := range a.subjects {
				if len(a.subjects) < maxAccepted {
					break
				}
				delete(a.subjects, other)
			}
			a.subjects[subject] = struct{}{}
		})
	}
	if a.o.Keys != nil && a.o.Keys.Keys() != nil {
		return // signatures say more
	}
	token, err := bearer(header)
	if err != nil {
		return
	}
	d := digestOf(token)
	if a.has(d) {
		return
	}
	claims, err := unproved(token)
	if err != nil {
		return
	}
	var expires int64
	if claims.ExpiresAt != nil {
		expires = claims.ExpiresAt.Unix()
	}
	a.change(func() {
		if len(a.tokens) >= maxAccepted {
			delete(a.tokens, a.firstToExpire())
		}
		a.tokens[d] = expires
	})
}

// firstToExpire is called under the lock.
func (a *Accepted) firstToExpire() (first digest) {
	soonest := int64(math.MaxInt64)
	for d, expires := range a.tokens {
		if expires == 0 {
			expires = math.MaxInt64
		}
		if expires <= soonest {
			first, soonest = d, expires
		}
	}
	return first
}

// change makes a change that is to be kept.
func (a *Accepted) change(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
	a.dirty = true
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// knows tells whether a subject was let in.
func (a *Accepted) knows(subject string) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	_, ok := a.subjects[subject]
	return ok
}

// has tells whether a token was let in.
func (a *Accepted) has(d digest) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	_, ok := a.tokens[d]
	return ok
}

// hasTokens tells whether tokens can be told apart by having been let in.
func (a *Accepted) hasTokens() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return len(a.tokens) > 0
}

// acceptedDocument is what Facts keeps.
type acceptedDocument struct {
	Subjects []string         `json:"subjects"`
	Tokens   map[digest]int64 `json:"tokens,omitempty"` // as in Accepted
}

// Load adds what an earlier run has kept in Facts. An error means that it cannot be
// used; what comes next replaces it.
func (a *Accepted) Load(ctx context.Context) error {
	if a.o.Facts == nil {
		return nil
	}
	document, _, err := a.o.Facts.Fact(ctx, acceptedFact)
	if err != nil {
		return fmt.Errorf("recorded subjects: %w", err)
	}
	if len(document) == 0 {
		return nil
	}
	kept, err := parseAccepted(document)
	if err != nil {
		return fmt.Errorf("recorded subjects: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, subject := range kept.Subjects {
		a.subjects[subject] = struct{}{}
	}
	maps.Copy(a.tokens, kept.Tokens)
	return nil
}

func parseAccepted(document []byte) (kept acceptedDocument, err error) {
	if err := json.Unmarshal(document, &kept); err != nil {
		return acceptedDocument{}, errors.New("not a JSON document of subjects and tokens")
	}
	if len(kept.Subjects) > maxAccepted || len(kept.Tokens) > maxAccepted {
		return acceptedDocument{}, fmt.Errorf("more than %d subjects or tokens", maxAccepted)
	}
	return kept, nil
}

// Run keeps what is new in Facts, at once but not more often than every ten seconds,
// until ctx ends; it returns nil then, when the last of it is kept. What fails is logged
// when it begins and tried again.
func (a *Accepted) Run(ctx context.Context) error {
	if a.o.Facts == nil {
		return nil
	}
	var failing string
	for {
		select {
		case <-a.changed:
		case <-ctx.Done():
		}
		err := a.keep(context.WithoutCancel(ctx))
		switch {
		case err == nil:
			failing = ""
		case failing != err.Error():
			failing = err.Error()
			a.o.Logger.Warn("cannot keep whom the API server has let in; after a restart they may not be known while the link is down", zap.Error(err))
		}
		if ctx.Err() != nil {
			return nil
		}
		a.pause(ctx)
	}
}

func (a *Accepted) pause(ctx context.Context) {
	timer := a.o.Clock.NewTimer(minGap)
	defer timer.Stop()
	select {
	case <-timer.C():
	case <-ctx.Done():
	}
}

const keepTimeout = 2 * time.Second

func (a *Accepted) keep(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	document, err := a.unkept()
	if err == nil && document != nil {
		err = a.o.Facts.PutFact(ctx, acceptedFact, document)
	}
	if err != nil {
		a.change(func() {}) // nothing but that it is still to be kept
	}
	return err
}

// unkept gives the document that Facts does not have yet, nil if it has.
func (a *Accepted) unkept() ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.dirty {
		return nil, nil
	}
	a.dirty = false
	kept := acceptedDocument{Tokens: a.tokens}
	for subject := range a.subjects {
		kept.Subjects = append(kept.Subjects, subject)
	}
	return json.Marshal(kept)
}
