package principal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
	"k8s.io/utils/clock"
)

const (
	// keysURL is where the API server publishes its keys to service accounts
	// (ClusterRole system:service-account-issuer-discovery). The host is only a
	// name: the transport goes to the server that it has.
	keysURL = "https://kubernetes.default.svc/openid/v1/jwks"
	// keysFact is the name under which the document is kept.
	keysFact = "jwks"

	// DefaultInterval is how often the keys are fetched.
	DefaultInterval = time.Hour
	// minGap lies between two fetches, whatever unknown keys callers present.
	minGap       = 10 * time.Second
	fetchTimeout = 10 * time.Second
	maxDocument  = 256 << 10
)

var fetches = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "rockpool_principal_jwks_fetches_total",
	Help: "Fetches of the cluster's signing keys by result: changed, unchanged, failed.",
}, []string{"result"})

// Facts keeps small documents over restarts. A key that was never put gives a
// nil value and no error.
type Facts interface {
	Fact(ctx context.Context, key string) (value []byte, at time.Time, err error)
	PutFact(ctx context.Context, key string, value []byte) error
}

// FetcherOptions say how the keys are fetched and kept.
type FetcherOptions struct {
	Transport  http.RoundTripper               // to the API server
	Token      func() (string, error)          // the pod's own, which goes with the request
	Facts      Facts                           // nil = the keys are forgotten at the end
	WaitOnline func(ctx context.Context) error // returns when the link is up; nil = do not wait
	Interval   time.Duration                   // 0 = DefaultInterval
	Clock      clock.WithTicker                // nil = the system's
	Logger     *zap.Logger                     // nil = none
}

// Fetcher keeps the cluster's signing keys at hand. It is safe for concurrent use.
type Fetcher struct {
	o       FetcherOptions
	current atomic.Pointer[recorded]
	refresh chan struct{}

	mu   sync.Mutex // one document is replaced at a time
	kept []byte     // what Facts holds
}

// recorded is a document and what it says.
type recorded struct {
	document []byte
	set      *KeySet
}

var _ Keys = (*Fetcher)(nil)

// NewFetcher does nothing yet: call Load before the first request is answered,
// and Run.
func NewFetcher(o FetcherOptions) *Fetcher {
	if o.Interval <= 0 {
		o.Interval = DefaultInterval
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	return &Fetcher{o: o, refresh: make(chan struct{}, 1)}
}

// Keys gives the keys that are known now, nil if none are.
func (f *Fetcher) Keys() *KeySet {
	if r := f.current.Load(); r != nil {
		return r.set
	}
	return nil
}

// Refresh asks Run for a fetch soon. It does not block.
func (f *Fetcher) Refresh() {
	select {
	case f.refresh <- struct{}{}:
	default:
	}
}

// Load takes the keys of an earlier run from Facts, if there are any and none
// have been fetched yet. An error means that what is kept cannot be used; the
// next fetch replaces it.
func (f *Fetcher) Load(ctx context.Context) error {
	if f.o.Facts == nil {
		return nil
	}
	document, _, err := f.o.Facts.Fact(ctx, keysFact)
	if err != nil {
		return fmt.Errorf("recorded signing keys: %w", err)
	}
	if len(document) == 0 {
		return nil
	}
	set, err := ParseKeySet(document)
	if err != nil {
		return fmt.Errorf("recorded signing keys: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept = document
	f.current.CompareAndSwap(nil, &recorded{document, set})
	return nil
}

// Run fetches the keys at once, then every interval and when Refresh asks,
// until ctx ends; it returns nil then. What fails is logged when it begins and
// tried again, while the keys that are known stay.
func (f *Fetcher) Run(ctx context.Context) error {
	var failing string
	retry := minGap
	for {
		if f.o.WaitOnline != nil && f.o.WaitOnline(ctx) != nil {
			return nil
		}
		// Whoever asked before now is answered by this fetch.
		select {
		case <-f.refresh:
		default:
		}
		wait := f.o.Interval
		if err := f.fetch(ctx); ctx.Err() != nil {
			return nil
		} else if err != nil {
			if failing != err.Error() {
				failing = err.Error()
				f.o.Logger.Warn("cannot fetch the cluster's signing keys; while the link is down "+f.consequence(), zap.Error(err))
			}
			wait = min(retry, wait)
			retry = 2 * wait
		} else {
			failing, retry = "", minGap
		}
		gap := min(minGap, wait)
		if !f.sleep(ctx, gap, nil) || !f.sleep(ctx, wait-gap, f.refresh) {
			return nil
		}
	}
}

// consequence says what it means that no keys can be fetched.
func (f *Fetcher) consequence() string {
	if f.Keys() != nil {
		return "tokens are checked with the keys that were fetched before"
	}
	return "no tokens are believed but the pod's own and those that the API server has accepted before"
}

// sleep ends after d, or early when something comes from wake; false = ctx ended.
func (f *Fetcher) sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := f.o.Clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C():
	case <-wake:
	}
	return true
}

func (f *Fetcher) fetch(ctx context.Context) error {
	document, err := f.get(ctx)
	if err != nil {
		fetches.WithLabelValues("failed").Inc()
		return err
	}
	// Before it replaces anything: keys that do not parse lock everybody out.
	set, err := ParseKeySet(document)
	if err != nil {
		fetches.WithLabelValues("failed").Inc()
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := f.current.Load(); r == nil || !bytes.Equal(r.document, document) {
		f.current.Store(&recorded{document, set})
		fetches.WithLabelValues("changed").Inc()
	} else {
		fetches.WithLabelValues("unchanged").Inc()
	}
	if f.o.Facts == nil || bytes.Equal(f.kept, document) {
		return nil
	}
	if err := f.o.Facts.PutFact(ctx, keysFact, document); err != nil {
		return fmt.Errorf("keep the signing keys: %w", err)
	}
	f.kept = document
	return nil
}

func (f *Fetcher) get(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	token, err := f.o.Token()
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, keysURL, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	request.Header.Set("User-Agent", "rockpool-sidecar")
	response, err := f.o.Transport.RoundTrip(request)
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", request.URL.Path, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		err := fmt.Errorf("GET %s: status %d", request.URL.Path, response.StatusCode)
		if response.StatusCode == http.StatusForbidden || response.StatusCode == http.StatusUnauthorized {
			err = fmt.Errorf("%w; bind the ClusterRole system:service-account-issuer-discovery to the group system:serviceaccounts", err)
		}
		return nil, err
	}
	document, err := io.ReadAll(io.LimitReader(response.Body, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", request.URL.Path, err)
	}
	if len(document) > maxDocument {
		return nil, errors.New("JWKS: larger than 256 KiB")
	}
	return document, nil
}
