package report

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/api/origin"
	"rockpool.dev/sidecar/outage"
	"rockpool.dev/sidecar/principal"
)

var reports = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "rockpool_reports_total",
	Help: "Reports of outages to the API server by kind (event, condition) and result: sent, refused (a 4xx: the pod's service account lacks the right; the kind stays off until the sidecar starts again), failed (tried again later).",
}, []string{"kind", "result"})

const (
	// server is a placeholder: the transport knows the address.
	server = "https://kubernetes.default.svc"
	// answerTimeout is how long the API server may take for one report.
	answerTimeout = 30 * time.Second
	// firstRetry is how long after a failure a report is sent again. It doubles, up to longestRetry.
	firstRetry   = time.Minute
	longestRetry = time.Hour
	// spread bounds a random wait: all sites of a cluster may come back at the same time.
	spread = 20 * time.Second
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 64 << 10
)

// Kinds are the kinds of reports that are sent.
type Kinds struct{ Events, Condition bool }

// Way is how reports reach the API server.
type Way struct {
	Transport  http.RoundTripper
	Token      func() (string, error)      // the pod's own
	WaitOnline func(context.Context) error // returns when the link is up
}

// Reporter sends reports. Its methods may be called from several goroutines.
type Reporter struct {
	log   *zap.Logger
	clock clock.WithTicker

	mu      sync.Mutex
	kinds   Kinds
	refused map[string]bool // kinds that the API server has refused
	book    book
	wake    chan struct{}
}

// New makes a Reporter that sends nothing; see Set and Run.
func New(log *zap.Logger, c clock.WithTicker) *Reporter {
	return &Reporter{log: log, clock: c, refused: map[string]bool{}, wake: make(chan struct{}, 1)}
}

// Set replaces which kinds are sent. What the API server has refused is tried again if that changes
// them.
func (r *Reporter) Set(kinds Kinds) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if kinds != r.kinds {
		r.kinds = kinds
		clear(r.refused)
	}
	if kinds == (Kinds{}) {
		r.book.outages, r.book.notes = summary{}, nil
	}
}

// Outage reports an outage that has ended.
func (r *Reporter) Outage(o outage.Outage) { r.add(func(b *book) { b.outage(o) }) }

// Note reports something else, by an Event.
func (r *Reporter) Note(reason, message string) {
	r.add(func(b *book) { b.note(reason, message, r.clock.Now()) })
}

func (r *Reporter) add(f func(*book)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kinds == (Kinds{}) {
		return
	}
	f(&r.book)
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run sends what is due while the link is up, until ctx ends.
func (r *Reporter) Run(ctx context.Context, to Way) error {
	for {
		due := r.due()
		if due.IsZero() {
			select {
			case <-r.wake:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		if !r.sleep(ctx, due.Sub(r.clock.Now())+rand.N(spread)) { //nolint:gosec // it only spreads requests
			return nil
		}
		if to.WaitOnline(ctx) != nil || !r.send(ctx, to, r.take()) {
			return nil
		}
	}
}

func (r *Reporter) due() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.book.due()
}

// sleep reports false if ctx has ended.
func (r *Reporter) sleep(ctx context.Context, d time.Duration) bool {
	timer := r.clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C():
		return true
	case <-ctx.Done():
		return false
	}
}

// message is one request.
type message struct {
	kind        string // event or condition
	method      string
	contentType string
	path        func(principal.Pod) string
	body        func(principal.Pod) []byte
}

// take gives what is to be sent now.
func (r *Reporter) take() (all []message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	facts, condition, changed := r.book.take(r.clock.Now())
	if r.kinds.Events {
		for _, f := range facts {
			all = append(all, message{"event", http.MethodPost, "application/json", eventsPath, func(p principal.Pod) []byte { return eventBody(p, f) }})
		}
	}
	if r.kinds.Condition && condition != "" {
		all = append(all, message{"condition", http.MethodPatch, "application/strategic-merge-patch+json", statusPath,
			func(p principal.Pod) []byte { return conditionBody(p, condition, changed) }})
	}
	return all
}

// send sends messages in their order, each until the API server has answered. It reports false if
// ctx has ended.
func (r *Reporter) send(ctx context.Context, to Way, all []message) bool {
	wait := firstRetry
	for len(all) > 0 {
		m := all[0]
		switch err := r.sendOne(ctx, to, m); {
		case ctx.Err() != nil:
			return false
		case err != nil:
			reports.WithLabelValues(m.kind, "failed").Inc()
			r.log.Debug("cannot report an outage yet", zap.String("kind", m.kind), zap.Error(err))
			if !r.sleep(ctx, wait) || to.WaitOnline(ctx) != nil {
				return false
			}
			wait = min(2*wait, longestRetry)
			continue
		}
		all = all[1:]
	}
	return true
}

// sendOne sends a message, unless its kind is off by now. An error means that it is worth another
// attempt.
func (r *Reporter) sendOne(ctx context.Context, to Way, m message) error {
	if !r.wanted(m.kind) {
		return nil
	}
	token, err := to.Token()
	if err != nil {
		return err
	}
	pod, ok := principal.PodOf(token)
	if !ok {
		r.refuse(m.kind, "the pod's token is not bound to a pod")
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, m.method, server+m.path(pod), bytes.NewReader(m.body(pod)))
	if err != nil {
		return err
	}
	request.Header = http.Header{
		"Authorization": {"Bearer " + token}, "User-Agent": {component}, "Content-Type": {m.contentType},
		// Of the object only its metadata comes back.
		"Accept": {"application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"},
	}
	response, err := to.Transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if !origin.FromAPIServer(response) {
		return fmt.Errorf("%w: status %d", origin.ErrForeign, response.StatusCode)
	}
	raw, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	switch code := response.StatusCode; {
	case code < 300, code == http.StatusConflict && m.kind == "event": // it has arrived before
		reports.WithLabelValues(m.kind, "sent").Inc()
	case err != nil:
		return err
	case code == http.StatusUnauthorized, code == http.StatusRequestTimeout, code == http.StatusConflict, code == http.StatusTooManyRequests, code < 400, code >= 500:
		return fmt.Errorf("the API server answers %d", code)
	default:
		var status struct{ Message string }
		_ = json.Unmarshal(raw, &status) // without a message the code has to do
		r.refuse(m.kind, fmt.Sprintf("%d %s", code, cut(status.Message, 300)))
	}
	return nil
}

// wanted reports whether a kind is on, and not refused.
func (r *Reporter) wanted(kind string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.refused[kind] && (kind == "event" && r.kinds.Events || kind == "condition" && r.kinds.Condition)
}

// refuse turns a kind off until the start of the next sidecar.
func (r *Reporter) refuse(kind, why string) {
	reports.WithLabelValues(kind, "refused").Inc()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused[kind] = true
	r.log.Debug("the API server refuses reports of outages; sending no more of this kind",
		zap.String("kind", kind), zap.String("why", why), zap.String("see", "docs/rbac.md"))
}
