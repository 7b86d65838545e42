package lease

import (
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/write"
	"rockpool.dev/store"
)

var writesTotal = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "rockpool_lease_writes_total",
	Help: "Writes of leaders' locks (Leases, and annotations of ConfigMaps and Endpoints) while the link was down, by result: renewed, conflict (of another resourceVersion), invalid, unheld (not held when the link went down, or released since), expired, taken (it would have changed the holder), released, other (a POST or DELETE), more (it would have changed more of the object than its lock).",
}, []string{"result"})

// maxLocks bounds the locks that are remembered. A pod has one or two.
const maxLocks = 64

// Options of New.
type Options struct {
	Leases      bool // Leases are tracked
	Annotations bool // locks in annotations of ConfigMaps and Endpoints are tracked
	Logger      *zap.Logger
	Clock       clock.PassiveClock // nil means the real one
}

// Tracker knows the locks that clients hold. Its methods may be called from several
// goroutines.
type Tracker struct {
	log   *zap.Logger
	clock clock.PassiveClock
	locks []lock

	mu    sync.Mutex
	known map[key]*state
}

var _ write.Acceptor = (*Tracker)(nil)

type key struct{ principal, resource, namespace, name string }

func keyOf(principal string, info *request.Info) key {
	return key{principal, info.Resource, info.Namespace, info.Name}
}

// state is what a principal knows of one lock.
type state struct {
	*lock
	object  write.Object   // as the server gave it, or as it was renewed here
	known   store.Evidence // of the server's answer
	held    bool           // its holder has written it through this process
	renewed time.Time      // when that was last asked for
	local   bool           // the server does not know of the last renewal
}

func (s *state) holder() string { return s.read(s.object).holder }

// expired tells that a candidate may take the lock, had it seen the last renewal.
func (s *state) expired(now time.Time) bool {
	return now.Sub(s.renewed) >= s.read(s.object).duration
}

// New makes a Tracker that knows no lock.
func New(opts Options) *Tracker {
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	return &Tracker{log: opts.Logger, clock: opts.Clock, locks: locks(opts), known: map[key]*state{}}
}

// Handles tells whether a request is about one object of a kind that holds locks.
func (k *Tracker) Handles(info *request.Info) bool {
	if info.Class != request.ClassWrite && info.Class != request.ClassGet || info.Unrecorded || info.Subresource != "" ||
		info.Namespace == "" || k.of(info) == nil {
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

// Answers tells whether a write is about a lock that its principal holds.
func (k *Tracker) Answers(q write.Request) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.known[keyOf(q.Principal, q.Info)]
	return s != nil && s.held && !s.expired(k.clock.Now()) && !q.TooLarge && (q.Info.Verb == request.Update || q.Info.Verb == request.Patch)
}

// Repeatable tells that no write of a lock is accepted that the API server may have carried out:
// two holders could renew it then.
func (*Tracker) Repeatable(write.Request) bool { return false }

// Observe looks at an answer of the API server, which always is right.
func (k *Tracker) Observe(x write.Request, resp *http.Response) {
	answer := write.Peek(resp)
	k.mu.Lock()
	defer k.mu.Unlock()
	at, kind := keyOf(x.Principal, x.Info), k.of(x.Info)
	reads := x.Info.Verb == request.Get
	superseded := func(e store.Evidence) bool { // an answer that was overtaken, or comes from a cache
		old := k.known[at]
		return old != nil && !e.Newer(old.known) && !e.Agrees(old.known)
	}
	switch {
	case resp.StatusCode == http.StatusNotFound && superseded(x.Evidence(store.Gone, "")):
		return
	case resp.StatusCode == http.StatusNotFound, x.Info.Verb == request.Delete && resp.StatusCode < 300:
		k.end(at, "it is gone", resp.StatusCode)
		delete(k.known, at)
		return
	case resp.StatusCode == http.StatusConflict && !reads:
		k.end(at, "somebody else has written it", resp.StatusCode)
		return
	case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated:
		return
	}
	o, err := write.Read(kind.kind, resp.Header.Get("Content-Type"), answer)
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
	now := k.learn(at, kind, o, known)
	if now != nil && !reads && now.holder() != "" && now.wrote(x, o) {
		now.held, now.renewed = true, x.Sent
	}
	if now != nil {
		k.settle(at, now)
	}
}

// learned is the state that follows from the server's object, before it is settled.
type learned struct {
	*state
	old *state // nil: nothing was known
}

// learn makes the state of an object as the server has it. It gives nil for an object without a lock
// of which nothing is known. The lock is held.
func (k *Tracker) learn(at key, kind *lock, o write.Object, known store.Evidence) *learned {
	old, record := k.known[at], kind.read(o)
	if old == nil && !kind.whole && record == (lockRecord{}) {
		return nil
	}
	now := &learned{state: &state{lock: kind, object: o, known: known}, old: old}
	if old != nil {
		now.held, now.renewed = old.held && old.holder() != "" && old.holder() == record.holder, old.renewed
	}
	return now
}

// settle makes a learned state the known one. The lock is held.
func (k *Tracker) settle(at key, now *learned) {
	switch {
	case now.old == nil:
		k.makeRoom()
	case now.old.local:
		k.log.Info("the API server's "+now.noun+" counts again", zap.String("namespace", at.namespace), zap.String("name", at.name), zap.Bool("still held", now.held))
	}
	k.known[at] = now.state
}

// wrote tells that a write has renewed a lock, and not only changed something else of an object whose
// lock anybody holds: it sets holder and time of renewal to what the answer o has, and the
// time is not the one that was known.
func (l *learned) wrote(x write.Request, o write.Object) bool {
	var wrote write.Object
	var err error
	if x.Info.Verb == request.Patch {
		var p write.Patch
		p, err = write.ReadPatch(x.ContentType, x.Body)
		wrote = write.Object(p)
	} else {
		wrote, err = write.Read(l.kind, x.ContentType, x.Body)
	}
	if err != nil {
		return false
	}
	before, asked, now := "", l.read(wrote), l.read(o)
	if l.old != nil {
		before = l.read(l.old.object).renewed
	}
	return asked.renewed != "" && asked.renewed != before && asked.renewed == now.renewed &&
		(x.Info.Verb == request.Patch && asked.holder == "" || asked.holder == now.holder)
}

// end notes that a lock is not held any more. The lock is held.
func (k *Tracker) end(at key, why string, code int) {
	s := k.known[at]
	if s == nil || !s.held {
		return
	}
	s.held = false
	if s.local {
		k.log.Warn("a "+s.noun+" that was renewed locally is lost", zap.String("namespace", at.namespace), zap.String("name", at.name), zap.String("why", why), zap.Int("code", code))
	}
}

// makeRoom forgets a lock when there are too many, rather one that nobody here holds. The
// lock is held.
func (k *Tracker) makeRoom() {
	if len(k.known) < maxLocks {
		return
	}
	var victim key
	for at, s := range k.known {
		victim = at
		if !s.held {
			break
		}
	}
	delete(k.known, victim)
}
