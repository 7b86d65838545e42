package token

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/api/convert"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/write"
)

var requestsTotal = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "rockpool_token_requests_total",
	Help: "Requests for service-account tokens while the link was down, by result: answered, unknown (no token was issued to this caller for this), expired, invalid (or answered in no form that the client takes).",
}, []string{"result"})

const (
	// maxTokens bounds the tokens that are remembered. A program asks for one or two.
	maxTokens = 64
	// spare is how long a token must stay valid to be given out, so that it still is when it is used.
	spare = time.Minute
)

var kind = convert.Kind{APIVersion: "authentication.k8s.io/v1", Kind: "TokenRequest"}

// Reasons why no token is given, beside what package write says about a request.
var (
	errUnknown = fmt.Errorf("%w: issue a token that this caller has not asked for before", write.ErrNeedsServer)
	errExpired = fmt.Errorf("%w: renew a token that has expired, or soon will", write.ErrNeedsServer)
)

// Options of New.
type Options struct {
	Clock clock.PassiveClock // nil means the real one
}

// Tokens has the tokens that the API server has issued. Its methods may be called from several
// goroutines.
type Tokens struct {
	clock clock.PassiveClock

	mu     sync.Mutex
	issued map[key]issued
}

var _ write.Acceptor = (*Tokens)(nil)

// key is who asks for what.
type key struct{ principal, namespace, name, question string }

// issued is an answer of the API server.
type issued struct {
	object write.Object // with the token
	at     time.Time    // when it came
	ends   time.Time    // when the token expires, by this clock
}

// New makes Tokens that has none.
func New(opts Options) *Tokens {
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	return &Tokens{clock: opts.Clock, issued: map[key]issued{}}
}

// Handles tells whether a request asks for a token. One that is only tried, or asks as another user,
// is not answered here.
func (*Tokens) Handles(info *request.Info) bool {
	return info.IsResource && !info.Unrecorded && !info.Invalid && info.Group == "" && info.Version == "v1" &&
		info.Resource == "serviceaccounts" && info.Subresource == "token" && info.Verb == request.Create &&
		info.Namespace != "" && info.Name != ""
}

// Repeatable tells that another token does no harm.
func (*Tokens) Repeatable(write.Request) bool { return true }

// Answers tells whether there is a token for a request.
func (k *Tokens) Answers(q write.Request) bool {
	at, err := keyOf(q)
	if err != nil {
		return false
	}
	_, err = k.find(at)
	return err == nil
}

// Observe remembers a token that the API server has issued. It forgets one that the API server would
// not issue again.
func (k *Tokens) Observe(q write.Request, resp *http.Response) {
	at, err := keyOf(q)
	if err != nil {
		return
	}
	switch code := resp.StatusCode; {
	case code == http.StatusCreated || code == http.StatusOK:
	case code == http.StatusUnauthorized, code == http.StatusTooManyRequests, code < http.StatusBadRequest, code >= http.StatusInternalServerError:
		return // says nothing about what was asked
	default:
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.issued, at)
		return
	}
	now := k.clock.Now()
	o, err := write.Read(kind, resp.Header.Get("Content-Type"), write.Peek(resp))
	if err != nil {
		return
	}
	ends, err := time.Parse(time.RFC3339, o.Text("status", "expirationTimestamp"))
	if err != nil || o.Text("status", "token") == "" {
		return
	}
	// The clocks of edge boards are off. How long the token lasts is known by the server's.
	if server, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		ends = now.Add(ends.Sub(server))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.issued[at]; !ok && len(k.issued) >= maxTokens {
		k.makeRoom()
	}
	k.issued[at] = issued{object: o, at: now, ends: ends}
}

// makeRoom forgets the token that was issued first. The lock is held.
func (k *Tokens) makeRoom() {
	var oldest key
	for at, i := range k.issued {
		if first, ok := k.issued[oldest]; !ok || i.at.Before(first.at) {
			oldest = at
		}
	}
	delete(k.issued, oldest)
}

// Accept answers with the last token for what is asked.
func (k *Tokens) Accept(_ context.Context, q write.Request) (*http.Response, error) {
	resp, err := k.answer(q)
	result := "answered"
	switch {
	case errors.Is(err, errUnknown):
		result = "unknown"
	case errors.Is(err, errExpired):
		result = "expired"
	case err != nil:
		result = "invalid"
	}
	requestsTotal.WithLabelValues(result).Inc()
	return resp, err
}

func (k *Tokens) answer(q write.Request) (*http.Response, error) {
	at, err := keyOf(q)
	if err != nil {
		return nil, err
	}
	o, err := k.find(at)
	if err != nil {
		return nil, err
	}
	return write.Answer(q.Info, kind, http.StatusCreated, o, "issued before")
}

// find gives the answer with a token that is still valid.
func (k *Tokens) find(at key) (write.Object, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	i, ok := k.issued[at]
	switch {
	case !ok:
		return nil, errUnknown
	case i.ends.Sub(k.clock.Now()) < spare:
		return nil, errExpired
	}
	return i.object, nil
}

// keyOf gives the key of a request. The lifetime that is asked for is no part of it: the API server
// may give another one as well. Members that the API has got since then are.
func keyOf(q write.Request) (key, error) {
	if q.TooLarge {
		return key{}, fmt.Errorf("%w: read a request of that size", write.ErrNeedsServer)
	}
	o, err := write.Read(kind, q.ContentType, q.Body)
	if err != nil {
		return key{}, err
	}
	spec, _ := o["spec"].(map[string]any)
	question := write.Object{}
	for name, value := range spec {
		list, isList := value.([]any)
		switch {
		case name == "expirationSeconds" || value == nil || isList && len(list) == 0:
		case name == "audiences":
			question[name] = sorted(list)
		default:
			question[name] = value
		}
	}
	return key{q.Principal, q.Info.Namespace, q.Info.Name, string(question.JSON())}, nil
}

// sorted is a set of audiences in one order. What is no audience stays as it is: the API server
// issues nothing for it.
func sorted(list []any) []any {
	for _, one := range list {
		if _, ok := one.(string); !ok {
			return list
		}
	}
	all := slices.SortedFunc(slices.Values(list), func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
	return slices.Compact(all)
}
