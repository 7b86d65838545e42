package outbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"rockpool.dev/sidecar/tally"
	"rockpool.dev/sidecar/write"
	"rockpool.dev/store"
)

const (
	// firstRetry is how long after a failure delivery is tried again. It doubles, up to
	// longestRetry, for as long as that fails.
	firstRetry   = time.Second
	longestRetry = time.Minute
	// answerTimeout is how long the API server may take for one Event.
	answerTimeout = 30 * time.Second
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 64 << 10
)

// Sender brings requests to the API server.
type Sender interface {
	// WaitOnline returns nil when they are worth sending, or the error of the context.
	WaitOnline(context.Context) error
	// Send sends a request with the principal's present token; write.ErrNoToken: there is none.
	Send(principal string, r *http.Request) (*http.Response, error)
}

// Run delivers what is queued whenever the link is up, until ctx ends. It is to be called
// once.
func (b *Outbox) Run(ctx context.Context, courier Sender) error {
	wait := time.Duration(0)
	for {
		if len(b.snapshot()) == 0 {
			select {
			case <-b.wake:
			case <-ctx.Done():
				return nil
			}
		}
		if err := courier.WaitOnline(ctx); err != nil {
			return nil
		}
		if b.deliver(ctx, courier) {
			wait = 0
			continue
		}
		wait = min(max(firstRetry, 2*wait), longestRetry)
		select {
		case <-b.Clock.After(wait/2 + rand.N(wait/2)): //nolint:gosec // many sidecars come back at the same time
		case <-ctx.Done():
			return nil
		}
	}
}

// errHolds says that a principal's Events cannot be delivered now, while others' may be.
var errHolds = errors.New("the principal's token is not accepted")

// deliver tries each queued Event, in order. It reports false when it has to be tried again
// later.
func (b *Outbox) deliver(ctx context.Context, courier Sender) (all bool) {
	b.accepting.Lock()
	b.bound(ctx)
	b.accepting.Unlock()
	held := map[string]bool{}
	counts := map[string]int{}
	defer func() {
		if n := len(counts); n > 0 {
			b.Logger.Info("queued Events are delivered", zap.Any("results", counts), zap.Int("left", len(b.snapshot())))
		}
	}()
	for _, e := range b.snapshot() {
		changes, _, waits := b.state(e)
		if !waits || held[e.principal] {
			continue
		}
		result, err := b.send(ctx, courier, e)
		switch {
		case errors.Is(err, write.ErrNoToken), errors.Is(err, errHolds):
			held[e.principal] = true
			b.Repeated.Write(tally.Line{
				Level: zap.WarnLevel, Message: "queued Events wait for a token",
				Kind: []zap.Field{zap.String("principal", e.principal)}, Err: err,
			})
		case err != nil:
			if ctx.Err() == nil {
				b.warn("a queued Event cannot be delivered yet", e.key, err)
			}
			return false
		default:
			b.end(ctx, e, result, changes)
			counts[result]++
		}
	}
	return len(held) == 0
}

// end removes what was delivered, unless it was changed meanwhile: then it stays, and is
// patched the next time.
func (b *Outbox) end(ctx context.Context, e *entry, result string, changes int) {
	b.accepting.Lock()
	defer b.accepting.Unlock()
	if now, _, waits := b.state(e); waits && (now == changes || result == "refused") {
		b.drop(ctx, e, result)
	}
}

// send sends one Event: as a new one, and if there is one of its name, what has changed of
// it. It gives what became of it, or an error when that is not known yet.
func (b *Outbox) send(ctx context.Context, courier Sender, e *entry) (result string, err error) {
	q, err := b.Store.Queued(ctx, e.id)
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrCorrupt):
		b.warn("a queued Event is lost", e.key, err)
		return "lost", nil
	case err != nil:
		return "", err
	}
	if _, superseded, _ := b.state(e); superseded {
		return "superseded", nil
	}
	object, err := anew(q.Object)
	if err != nil {
		return "", err
	}
	status, err := b.exchange(ctx, courier, http.MethodPost, q, q.Path, "application/json", object)
	if err != nil || status.Reason != metav1.StatusReasonAlreadyExists {
		return b.verdict(status, err, e)
	}
	_, superseded, _ := b.state(e)
	switch {
	case len(q.Patch) == 0:
		return "present", nil
	case superseded:
		return "superseded", nil
	}
	status, err = b.exchange(ctx, courier, http.MethodPatch, q, q.Path+"/"+q.Name, string(types.MergePatchType), q.Patch)
	if err == nil && status.Code == http.StatusNotFound { // it has ended its life between the two
		return "present", nil
	}
	return b.verdict(status, err, e)
}

// anew takes away what the server has given an Event from before the outage: it takes none of
// that when the Event is made again.
func anew(object []byte) ([]byte, error) {
	o, err := write.Decode(object)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"resourceVersion", "uid", "creationTimestamp", "managedFields", "generation", "selfLink"} {
		delete(o.Metadata(), name)
	}
	return o.JSON(), nil
}

// verdict tells what an answer means for the Event.
func (b *Outbox) verdict(status metav1.Status, err error, e *entry) (string, error) {
	switch code := status.Code; {
	case err != nil:
		return "", err
	case code == http.StatusOK, code == http.StatusCreated:
		return "delivered", nil
	case code == http.StatusUnauthorized: // not the Event's fault; the kubelet will bring a new token
		return "", errHolds
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code == http.StatusConflict, code < 400, code >= 500:
		return "", fmt.Errorf("the API server answers %d %s", code, status.Reason)
	}
	b.Repeated.Write(tally.Line{
		Level: zap.WarnLevel, Message: "the API server refuses a queued Event; it is dropped",
		Kind:   []zap.Field{zap.Int32("code", status.Code), zap.String("reason", string(status.Reason))},
		Fields: []zap.Field{zap.String("path", e.path), zap.String("name", e.name)},
	})
	return "refused", nil
}

// exchange sends a request and gives code and reason of the answer.
func (b *Outbox) exchange(ctx context.Context, courier Sender, method string, q store.Queued, path, contentType string, body []byte) (status metav1.Status, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, (&url.URL{Path: path}).String(), bytes.NewReader(body))
	if err != nil {
		return status, err
	}
	r.Header = http.Header{"Content-Type": {contentType}, "Accept": {"application/json"}, "User-Agent": {"rockpool-sidecar"}}
	resp, err := courier.Send(q.Principal, r)
	if err != nil {
		return status, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return status, err
	}
	if resp.StatusCode >= 400 {
		_ = json.Unmarshal(raw, &status) // without a reason the code has to do
	}
	status.Code = int32(resp.StatusCode)
	return status, nil
}
