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

	"rockpool.dev/sidecar/api/origin"
)

const (
	// keysURL is where the API server publishes its keys to service accounts (ClusterRole
	// system:service-account-issuer-discovery). The transport ignores the host.
	keysURL = "https://kubernetes.default.svc/openid/v1/jwks"
	// keysFact is the key of the document in Facts.
	keysFact = "jwks"

	// DefaultInterval is how often the keys are fetched.
	DefaultInterval = time.Hour
	// minInterval is the shortest time between two fetches, however many unknown keys callers use.
	minInterval  = 10 * time.Second
	fetchTimeout = 10 * time.Second
	maxDocument  = 256 << 10
)

var fetches = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "rockpool_principal_jwks_fetches_total",
	Help: "Fetches of the cluster's signing keys by result: changed, unchanged, failed.",
}, []string{"result"})

// Facts keeps small documents over restarts. A key that was never put has a nil value and no error.
type Facts interface {
	Fact(ctx context.Context, key string) (value []byte, at time.Time, err error)
	PutFact(ctx context.Context, key string, value []byte) error
}

// FetcherOptions say how the keys are fetched and saved.
type FetcherOptions struct {
	Transport  http.RoundTripper               // to the API server
	Token      func() (string, error)          // returns the pod's own token, for the request
	Facts      Facts                           // nil = the keys are not saved
	WaitOnline func(ctx context.Context) error // returns when the link is up; nil = do not wait
	Interval   time.Duration                   // 0 = DefaultInterval
	Clock      clock.WithTicker                // nil = the system's clock
	Logger     *zap.Logger                     // nil = no log
}

// Fetcher fetches and saves the cluster's signing keys. It is safe for concurrent use.
type Fetcher struct {
	o       FetcherOptions
	current atomic.Pointer[keyDocument]
	refresh chan struct{}

	mu    sync.Mutex // one document is replaced at a time
	saved []byte     // the document in Facts
}

// keyDocument is a JWKS document and its keys.
type keyDocument struct {
	document []byte
	set      *KeySet
}

var _ Keys = (*Fetcher)(nil)

// NewFetcher returns a Fetcher without keys: call Load before the first request is answered, and
// Run.
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

// Keys returns the current keys, or nil if there are none.
func (f *Fetcher) Keys() *KeySet {
	if r := f.current.Load(); r != nil {
		return r.set
	}
	return nil
}

// Refresh makes Run fetch soon. It does not block.
func (f *Fetcher) Refresh() {
	select {
	case f.refresh <- struct{}{}:
	default:
	}
}

// Load takes the keys of an earlier run from Facts, if there are any and no keys have been fetched
// yet. Otherwise it saves those that have been fetched: Facts may have been opened since. An error
// means that the saved document cannot be used; the next fetch replaces it.
func (f *Fetcher) Load(ctx context.Context) error {
	if f.o.Facts == nil {
		return nil
	}
	document, _, err := f.o.Facts.Fact(ctx, keysFact)
	if err != nil {
		return fmt.Errorf("recorded signing keys: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.saved = document
	if fetched := f.current.Load(); fetched != nil {
		return f.save(ctx, fetched.document)
	}
	if len(document) == 0 {
		return nil
	}
	set, err := ParseKeySet(document)
	if err != nil {
		return fmt.Errorf("recorded signing keys: %w", err)
	}
	f.current.Store(&keyDocument{document, set})
	return nil
}

// Run fetches the keys at once, then every interval and after each Refresh, until ctx ends; it then
// returns nil. It retries after a failure and keeps the current keys. It logs an error once, until
// a fetch succeeds or fails with another error.
func (f *Fetcher) Run(ctx context.Context) error {
	var failing string
	retry := minInterval
	for {
		if f.o.WaitOnline != nil && f.o.WaitOnline(ctx) != nil {
			return nil
		}
		// This fetch serves every Refresh so far.
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
				f.o.Logger.Warn("cannot fetch the cluster's signing keys; "+f.consequence(), zap.Error(err))
			}
			wait = min(retry, wait)
			retry = 2 * wait
		} else {
			failing, retry = "", minInterval
		}
		gap := min(minInterval, wait)
		if !f.sleep(ctx, gap, nil) || !f.sleep(ctx, wait-gap, f.refresh) {
			return nil
		}
	}
}

// consequence says what the Verifier does while no keys can be fetched.
func (f *Fetcher) consequence() string {
	if f.Keys() != nil {
		return "while the link is down, tokens are checked with the keys fetched before"
	}
	return "while the link is down, only the pod's own token and tokens that the API server has accepted are valid"
}

// sleep returns after d, or early at a value from wake. It returns false if ctx ended.
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
	// Parse before the document replaces another: without usable keys every caller is locked out.
	set, err := ParseKeySet(document)
	if err != nil {
		fetches.WithLabelValues("failed").Inc()
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := f.current.Load(); r == nil || !bytes.Equal(r.document, document) {
		f.current.Store(&keyDocument{document, set})
		fetches.WithLabelValues("changed").Inc()
	} else {
		fetches.WithLabelValues("unchanged").Inc()
	}
	return f.save(ctx, document)
}

// save saves a document unless Facts has it. The caller holds the lock.
func (f *Fetcher) save(ctx context.Context, document []byte) error {
	if f.o.Facts == nil || bytes.Equal(f.saved, document) {
		return nil
	}
	if err := f.o.Facts.PutFact(ctx, keysFact, document); err != nil {
		return fmt.Errorf("save the signing keys: %w", err)
	}
	f.saved = document
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
	if !origin.FromAPIServer(response) {
		return nil, fmt.Errorf("GET %s: status %d: %w", request.URL.Path, response.StatusCode, origin.ErrForeign)
	}
	if response.StatusCode != http.StatusOK {
		err := fmt.Errorf("GET %s: status %d", request.URL.Path, response.StatusCode)
		if response.StatusCode == http.StatusForbidden || response.StatusCode == http.StatusUnauthorized {
			err = fmt.Errorf("%w; bind the ClusterRole system:service-account-issuer-discovery "+
				"to the group system:serviceaccounts", err)
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
