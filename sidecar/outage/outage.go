package outage

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/tally"
)

// Outage is a time without a link.
type Outage struct {
	Lost     time.Time
	Restored time.Time // zero: it goes on
	Evidence string    // why the link was taken for down
	// Answered are the requests that the cache has answered, Accepted the writes that it has taken,
	// and Refused those with an error of the sidecar.
	Answered, Accepted, Refused int
	// Oldest is the age of the oldest answer, as its header Age says, in whole seconds.
	Oldest time.Duration
}

// Lasted is how long the link was down; 0 if the node's clock was set back meanwhile.
func (o *Outage) Lasted() time.Duration { return max(0, o.Restored.Sub(o.Lost)) }

const (
	// pollInterval is how often watches are counted until all are back.
	pollInterval = 500 * time.Millisecond
	// catchUpPatience is how long they may take. Watches come back within 30 s, unless the API server
	// asks for more time.
	catchUpPatience = 5 * time.Minute
	// doubtLasts is how long after a request that did not get through the next one, or the outage,
	// must come, so that they belong together. Links are found to be down within seconds.
	doubtLasts = time.Minute
)

// Options of New.
type Options struct {
	// Waiting is how many watches wait for the link or for their turn after it is back.
	Waiting func() int
	// Ended, if not nil, is called for each outage that has ended. It must return soon.
	Ended func(Outage)
	Log   *tally.Log
	Clock clock.WithTicker
}

// Keeper keeps the outage that goes on. Its methods may be called from several goroutines.
type Keeper struct {
	Options

	mu      sync.Mutex
	current *Outage   // nil: the link is not down
	doubt   *Outage   // requests that did not get through before it was known that the link is down
	doubted time.Time // the last of them
	before  *Outage   // what an earlier run has left; see Resume
	changed bool      // the link has been up since the start
	begun   int       // outages so far
	ended   chan caughtUp
}

// caughtUp is an outage that has ended, and the watches that waited then.
type caughtUp struct {
	Outage
	begun   int // outages until then
	watches int
}

// New makes a Keeper of a link that is not known to be down.
func New(o Options) *Keeper { return &Keeper{Options: o, ended: make(chan caughtUp, 1)} }

// Resume says that the link was down when an earlier run ended. The outage counts from its beginning,
// unless the link was up since the start.
func (k *Keeper) Resume(lost time.Time, evidence string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.current != nil && !k.changed:
		k.current.Lost, k.current.Evidence = lost, evidence
	case !k.changed:
		k.before = &Outage{Lost: lost, Evidence: evidence}
	}
}

// Down says that the link is down. A further call in the same outage changes nothing.
func (k *Keeper) Down(evidence string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current != nil {
		return
	}
	k.begun++
	k.current = k.doubts()
	k.current.Lost, k.current.Evidence = k.Clock.Now(), evidence
	if k.before != nil {
		k.current.Lost, k.current.Evidence = k.before.Lost, k.before.Evidence
	}
	k.before, k.doubt = nil, nil
}

// Up says that the API server answers.
func (k *Keeper) Up() {
	waiting := k.Waiting()
	k.mu.Lock()
	o := k.current
	if o == nil {
		o = k.before
	}
	k.current, k.doubt, k.before, k.changed = nil, nil, nil, true
	begun := k.begun
	k.mu.Unlock()
	if o == nil {
		return
	}
	o.Restored = k.Clock.Now()
	if k.Ended != nil {
		k.Ended(*o)
	}
	select {
	case k.ended <- caughtUp{*o, begun, waiting}:
	default: // the one before is still being waited for, and this one goes with it
	}
}

// Answered counts a request that the cache has answered. The first of an outage is logged, with the
// fields that say which it was; nil: none.
func (k *Keeper) Answered(age time.Duration, which func() []zap.Field) {
	first := false
	k.count(func(o *Outage) {
		o.Answered++
		o.Oldest = max(o.Oldest, age)
		first = o.Answered == 1
	})
	if first {
		var fields []zap.Field
		if which != nil {
			fields = which()
		}
		k.Log.Write(tally.Line{Level: zap.InfoLevel, Message: "answering from the cache", Fields: append(fields, zap.Stringer("age", age))})
	}
}

// Accepted counts a write that was taken to be delivered later, or answered for the API server.
func (k *Keeper) Accepted() { k.count(func(o *Outage) { o.Accepted++ }) }

// Refused counts a request that got an error of the sidecar.
func (k *Keeper) Refused() { k.count(func(o *Outage) { o.Refused++ }) }

func (k *Keeper) count(f func(*Outage)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	o := k.current
	if o == nil {
		k.doubt, k.doubted = k.doubts(), k.Clock.Now()
		o = k.doubt
	}
	f(o)
}

// doubts has the requests of the present doubt. The caller holds mu.
func (k *Keeper) doubts() *Outage {
	if k.doubt == nil || k.Clock.Since(k.doubted) > doubtLasts {
		return &Outage{}
	}
	return k.doubt
}

// Run logs after each outage that all watches are back, until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	for {
		select {
		case o := <-k.ended:
			k.follow(ctx, o)
		case <-ctx.Done():
			return nil
		}
	}
}

// follow waits until the watches are back, and logs it. An outage that begins meanwhile ends that.
func (k *Keeper) follow(ctx context.Context, o caughtUp) {
	ticker := k.Clock.NewTicker(pollInterval)
	defer ticker.Stop()
	left := k.Waiting()
	for left > 0 && k.Clock.Since(o.Restored) < catchUpPatience {
		select {
		case <-ticker.C():
		case <-ctx.Done():
			return
		}
		if k.hasBegun() != o.begun {
			return
		}
		left = k.Waiting()
	}
	message := "caught up after an outage"
	if left > 0 {
		message = "some watches are not back after an outage"
	}
	k.Log.Write(tally.Line{Level: zap.InfoLevel, Message: message, Fields: []zap.Field{
		zap.Time("lost", o.Lost), zap.Stringer("lasted", o.Lasted().Round(time.Millisecond)),
		zap.Int("answered", o.Answered), zap.Stringer("oldestAnswer", o.Oldest), zap.Int("accepted", o.Accepted), zap.Int("refused", o.Refused),
		zap.Int("watches", o.watches), zap.Int("waiting", left), zap.Stringer("took", k.Clock.Since(o.Restored).Round(time.Millisecond)),
	}})
}

func (k *Keeper) hasBegun() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.begun
}
