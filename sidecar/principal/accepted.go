package principal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"k8s.io/utils/clock"
)

const (
	// acceptedFact is the key of Accepted's document in Facts.
	acceptedFact = "accepted"
	// maxAccepted bounds the recorded subjects, and the recorded tokens. A pod has one or two.
	maxAccepted = 64
)

// digest is the SHA-256 of a token.
type digest [sha256.Size]byte

func digestOf(token string) digest { return sha256.Sum256([]byte(token)) }

// MarshalText returns the digest in hex.
func (d digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText is the inverse of MarshalText.
func (d *digest) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(d)) {
		return errors.New("not a SHA-256 in hex")
	}
	_, err := hex.Decode(d[:], text)
	return err
}

// AcceptedOptions say how Accepted is saved.
type AcceptedOptions struct {
	Keys   Keys             // of the cluster; nil = there are none
	Facts  Facts            // nil = nothing is saved
	Clock  clock.WithTicker // nil = the system's clock
	Logger *zap.Logger      // nil = no log
}

// Accepted records the callers that the API server has accepted through this sidecar: their
// subjects and, while the cluster's signing keys are unknown, their tokens. It is safe for
// concurrent use.
//
// Of a token it records only the SHA-256. The digest needs no key: it can only be inverted by
// guessing the token, and a token ends with a signature that nobody can guess (256 bits and more,
// RFC 7518 §3.3 and §3.4). A token with another kind of signature is not recorded.
type Accepted struct {
	o       AcceptedOptions
	changed chan struct{}
	latest  atomic.Pointer[string] // a token in tokens, which spares its digest; nil: none

	mu       sync.RWMutex
	subjects map[string]struct{}
	tokens   map[digest]int64 // expiry of each in seconds since 1970; 0 = never
	dirty    bool             // Facts lacks a change
}

// NewAccepted returns an empty Accepted: call Load before the first request is answered, and Run.
func NewAccepted(o AcceptedOptions) *Accepted {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	return &Accepted{
		o: o, changed: make(chan struct{}, 1), subjects: map[string]struct{}{}, tokens: map[digest]int64{},
	}
}

// Add records a request whose token, with this subject, the API server has accepted. It does not
// block.
func (a *Accepted) Add(header http.Header, subject string) {
	if !a.hasSubject(subject) {
		a.update(func() {
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
		return // signatures are better proof
	}
	token, err := bearer(header)
	if err != nil {
		return
	}
	if latest := a.latest.Load(); latest != nil && *latest == token {
		return
	}
	d := digestOf(token)
	if a.hasToken(d) {
		a.remember(token, d)
		return
	}
	claims, err := parseUnverified(token)
	if err != nil {
		return
	}
	var expires int64
	if claims.ExpiresAt != nil {
		expires = claims.ExpiresAt.Unix()
	}
	a.update(func() {
		if len(a.tokens) >= maxAccepted {
			delete(a.tokens, a.firstToExpire())
			a.latest.Store(nil)
		}
		a.tokens[d] = expires
	})
}

// firstToExpire returns the token with the earliest expiry. The caller holds the lock.
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

// update makes a change and wakes Run to save it.
func (a *Accepted) update(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
	a.dirty = true
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// hasSubject reports whether the API server has accepted a token of the subject.
func (a *Accepted) hasSubject(subject string) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	_, ok := a.subjects[subject]
	return ok
}

// hasToken reports whether the API server has accepted the token.
func (a *Accepted) hasToken(d digest) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	_, ok := a.tokens[d]
	return ok
}

// remember spares a token that is recorded the next digest.
func (a *Accepted) remember(token string, d digest) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if _, ok := a.tokens[d]; ok { // it was not dropped meanwhile
		a.latest.Store(&token)
	}
}

// hasTokens reports whether any token is recorded.
func (a *Accepted) hasTokens() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return len(a.tokens) > 0
}

func (a *Accepted) hasAny() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return len(a.subjects)+len(a.tokens) > 0
}

// acceptedDocument is the document in Facts.
type acceptedDocument struct {
	Subjects []string         `json:"subjects"`
	Tokens   map[digest]int64 `json:"tokens,omitempty"` // as in Accepted
}

// Load adds the callers that an earlier run has saved in Facts, and has those of this run saved:
// Facts may have been opened since. An error means that the document cannot be used; the next save
// replaces it.
func (a *Accepted) Load(ctx context.Context) error {
	if a.o.Facts == nil {
		return nil
	}
	if a.hasAny() {
		defer a.update(func() {})
	}
	document, _, err := a.o.Facts.Fact(ctx, acceptedFact)
	if err != nil {
		return fmt.Errorf("recorded subjects: %w", err)
	}
	if len(document) == 0 {
		return nil
	}
	saved, err := parseAccepted(document)
	if err != nil {
		return fmt.Errorf("recorded subjects: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, subject := range saved.Subjects {
		if len(a.subjects) < maxAccepted {
			a.subjects[subject] = struct{}{}
		}
	}
	for d, expires := range saved.Tokens {
		if len(a.tokens) < maxAccepted {
			a.tokens[d] = expires
		}
	}
	return nil
}

func parseAccepted(document []byte) (saved acceptedDocument, err error) {
	if err := json.Unmarshal(document, &saved); err != nil {
		return acceptedDocument{}, errors.New("not a JSON document of subjects and tokens")
	}
	if len(saved.Subjects) > maxAccepted || len(saved.Tokens) > maxAccepted {
		return acceptedDocument{}, fmt.Errorf("more than %d subjects or tokens", maxAccepted)
	}
	return saved, nil
}

// Run saves changes in Facts, at once but at most every ten seconds, until ctx ends; it then saves
// the rest and returns nil. It retries after a failure. It logs an error once, until a save
// succeeds or fails with another error.
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
		err := a.save(context.WithoutCancel(ctx))
		switch {
		case err == nil:
			failing = ""
		case failing != err.Error():
			failing = err.Error()
			a.o.Logger.Warn("cannot save the callers that the API server has accepted; "+
				"after a restart without the link they may be rejected", zap.Error(err))
		}
		if ctx.Err() != nil {
			return nil
		}
		a.pause(ctx)
	}
}

func (a *Accepted) pause(ctx context.Context) {
	timer := a.o.Clock.NewTimer(minInterval)
	defer timer.Stop()
	select {
	case <-timer.C():
	case <-ctx.Done():
	}
}

const saveTimeout = 2 * time.Second

func (a *Accepted) save(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	document, err := a.unsaved()
	if err == nil && document != nil {
		err = a.o.Facts.PutFact(ctx, acceptedFact, document)
	}
	if err != nil {
		a.update(func() {}) // marks it as unsaved
	}
	return err
}

// unsaved returns the document to save, or nil if Facts has it already.
func (a *Accepted) unsaved() ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.dirty {
		return nil, nil
	}
	a.dirty = false
	saved := acceptedDocument{Tokens: a.tokens}
	for subject := range a.subjects {
		saved.Subjects = append(saved.Subjects, subject)
	}
	return json.Marshal(saved)
}
