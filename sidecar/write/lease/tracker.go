package lease

import (
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/api/convert"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/write"
	"rockpool.dev/store"
)

var writesTotal = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "rockpool_lease_writes_total",
	Help: "Writes of Leases while the link was down, by result: renewed, conflict (of another resourceVersion), invalid, unheld (not held when the link went down, or released since), expired, taken (it would have changed the holder), released, other (a POST or DELETE).",
}, []string{"result"})

const (
	group   = "coordination.k8s.io"
	version = "v1"
	// maxLeases bounds the Leases that are remembered. A pod has one or two.
	maxLeases = 64
)

var kind = convert.Kind{APIVersion: group + "/" + version, Kind: "Lease"}

// Options of New.
type Options struct {
	Logger *zap.Logger
	Clock  clock.PassiveClock // nil means the real one
}

// Tracker knows the Leases that clients hold. Its methods may be called from several
// goroutines.
type Tracker struct {
	log   *zap.Logger
	clock clock.PassiveClock

	mu     sync.Mutex
	leases map[key]*lease
}

var _ write.Acceptor = (*Tracker)(nil)

type key struct{ principal, namespace, name string }

// lease is what a principal knows of one.
type lease struct {
	object  write.Object   // as the server gave it, or as it was renewed here
	known   store.Evidence // of the server's answer
	held    bool           // its holder has written it through this process
	renewed time.Time      // when that was last asked for
	local   bool           // the server does not know of the last renewal
}

func (l *lease) holder() string { return l.object.Text("spec", "holderIdentity") }

// renewTime is when the holder says that it has renewed, as the API keeps it.
func renewTime(o write.Object) time.Time {
	at, err := time.Parse(time.RFC3339Nano, o.Text("spec", "renewTime"))
	if err != nil {
		return time.Time{}
	}
	return at.Truncate(time.Microsecond)
}

// expired tells that a candidate may take the Lease, had it seen the last renewal.
func (l *lease) expired(now time.Time) bool {
	return now.Sub(l.renewed) >= time.Duration(l.object.Int("spec", "leaseDurationSeconds"))*time.Second
}

// New makes a Tracker that knows no Lease.
func New(opts Options) *Tracker {
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	return &Tracker{log: opts.Logger, clock: opts.Clock, leases: map[key]*lease{}}
}

// Handles tells whether a request is about one Lease.
func (k *Tracker) Handles(info *request.Info) bool {
	if info.Class != request.ClassWrite && info.Class != request.ClassGet || info.Unrecorded || info.Subresource != "" ||
		info.Group != group || info.Version != version || info.Resource != "leases" || info.Namespace == "" {
		return false
	}
	switch info.Verb {
	case request.Get, request.Update, request.Patch, request.Delete:
		return info.Name != ""
	case request.Create:
		return info.Name == ""
	}
	return false
}

// Repeatable tells that no write of a Lease is accepted that the API server may have carried out:
// two holders could renew it then.
func (*Tracker) Repeatable(write.Request) bool { return false }

// Observe looks at an answer of the API server, which always is right.
func (k *Tracker) Observe(x write.Request, resp *http.Response) {
	answer := peek(resp)
	k.mu.Lock()
	defer k.mu.Unlock()
	at := key{x.Principal, x.Info.Namespace, x.Info.Name}
	reads := x.Info.Verb == request.Get
	superseded := func(e store.Evidence) bool { // an answer that was overtaken, or comes from a cache
		old := k.leases[at]
		return old != nil && !e.Newer(old.known) && !e.Agrees(old.known)
	}
	switch {
	case resp.StatusCode == http.StatusNotFound && superseded(x.Evidence(store.Gone, "")):
		return
	case resp.StatusCode == http.StatusNotFound, x.Info.Verb == request.Delete && resp.StatusCode < 300:
		k.end(at, "it is gone", resp.StatusCode)
		delete(k.leases, at)
		return
	case resp.StatusCode == http.StatusConflict && !reads:
		k.end(at, "somebody else has written it", resp.StatusCode)
		return
	case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated:
		return
	}
	o, err := write.Read(kind, resp.Header.Get("Content-Type"), answer)
	if err != nil { // a Table, or an encoding that cannot be read here
		if !reads {
			k.end(at, "its answer cannot be read", resp.StatusCode)
		}
		return
	}
	at.name = o.Text("metadata", "name")
	known := x.Evidence(store.Present, o.Text("metadata", "resourceVersion"))
	if superseded(known) {
		return
	}
	old := k.leases[at]
	if old == nil {
		k.makeRoom()
		old = &lease{}
	}
	now := &lease{object: o, known: known, held: old.held && old.holder() != "" && old.holder() == o.Text("spec", "holderIdentity"), renewed: old.renewed}
	if !reads && now.holder() != "" && renews(x, o, renewTime(old.object)) {
		now.held, now.renewed = true, x.Sent
	}
	if old.local {
		k.log.Info("the API server's Lease counts again", zap.String("namespace", at.namespace), zap.String("name", at.name), zap.Bool("still held", now.held))
	}
	k.leases[at] = now
}

// renews tells that a write has renewed a Lease, and not only changed something else of one
// that anybody holds: it sets holder and time of renewal to what the answer o has, and the
// time is not the one that was known.
func renews(x write.Request, o write.Object, known time.Time) bool {
	var wrote write.Object
	var err error
	if x.Info.Verb == request.Patch {
		var p write.Patch
		p, err = write.ReadPatch(x.ContentType, x.Body)
		wrote = write.Object(p)
	} else {
		wrote, err = write.Read(kind, x.ContentType, x.Body)
	}
	at := renewTime(wrote)
	return err == nil && !at.IsZero() && !at.Equal(known) && at.Equal(renewTime(o)) &&
		(x.Info.Verb == request.Patch && wrote.Text("spec", "holderIdentity") == "" || wrote.Text("spec", "holderIdentity") == o.Text("spec", "holderIdentity"))
}

// end notes that a Lease is not held any more. The lock is held.
func (k *Tracker) end(at key, why string, code int) {
	l := k.leases[at]
	if l == nil || !l.held {
		return
	}
	l.held = false
	if l.local {
		k.log.Warn("a Lease that was renewed locally is lost", zap.String("namespace", at.namespace), zap.String("name", at.name), zap.String("why", why), zap.Int("code", code))
	}
}

// makeRoom forgets a Lease when there are too many, rather one that nobody here holds. The
// lock is held.
func (k *Tracker) makeRoom() {
	if len(k.leases) < maxLeases {
		return
	}
	var victim key
	for at, l := range k.leases {
		victim = at
		if !l.held {
			break
		}
	}
	delete(k.leases, victim)
}

// held answers a GET of a held Lease; nil for all others.
func (k *Tracker) held(principal string, info *request.Info) *http.Response {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.leases[key{principal, info.Namespace, info.Name}]
	if info.Verb != request.Get || l == nil || !l.held || l.expired(k.clock.Now()) {
		return nil
	}
	resp, err := write.Answer(info, kind, http.StatusOK, l.object, "held")
	if err != nil { // a form that only the cache may have
		return nil
	}
	return resp
}
