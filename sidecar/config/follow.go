package config

import (
	"context"
	"crypto/sha256"
	"errors"
	"reflect"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/spf13/pflag"
	"go.uber.org/zap"
	"k8s.io/utils/clock"
)

const (
	// DefaultInterval is how often the file is read even if inotify reports no change:
	// inotify may be out of watches, and it misses changes to the target of a symbolic link.
	DefaultInterval = 30 * time.Second
	// debounce is how long a change may take. A file that is written in place is first
	// empty, and then incomplete.
	debounce = 100 * time.Millisecond
)

var reloads = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "rockpool_config_reloads_total",
	Help: "Reads of the configuration file and annotations while the sidecar runs, by result: " +
		"changed, unchanged, failed (invalid settings keep the value in effect).",
}, []string{"result"})

var problemCount = promauto.NewGauge(prometheus.GaugeOpts{
	Name: "rockpool_config_problems",
	Help: "Problems in the configuration file and annotations now. The log names each.",
})

// FollowOptions are the inputs of Follow.
type FollowOptions struct {
	Flags  *pflag.FlagSet // as for Load
	Config Config         // in effect at the start
	// Apply is called with the new settings when a run-time key has changed. All other keys
	// have their values of the start. If Apply returns an error, it must have changed nothing.
	Apply    func(Config) error
	Interval time.Duration    // 0 = DefaultInterval
	Clock    clock.WithTicker // nil = the system's
	Logger   *zap.Logger      // nil = none
}

// Follow reloads the settings whenever the configuration file or the annotations change. It
// returns nil when ctx ends, and at once when --config names no path. If --config names a
// file, any problem in it leaves all settings as they are. If --config names a directory, a
// problem leaves only the setting concerned as it is.
//
// viper's own WatchConfig is not used: it cannot be stopped, and reads the file without
// checking it.
func Follow(ctx context.Context, o FollowOptions) error {
	if o.Interval <= 0 {
		o.Interval = DefaultInterval
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	at := locate(o.Flags)
	if at.path == "" {
		return nil
	}
	o.Logger.Info("following the configuration", zap.String("path", at.path))
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		o.Logger.Warn("cannot watch the configuration file; reading it at intervals only",
			zap.Duration("interval", o.Interval), zap.Error(err))
	} else {
		defer watcher.Close()
	}
	f := &follower{FollowOptions: o}
	for {
		// Add the watch before each read, as package account does: no change is missed.
		watched := watcher != nil && watcher.Add(locate(o.Flags).watchDirectory()) == nil
		f.reload()
		if !f.waitForChange(ctx, watcher, watched) {
			return nil
		}
	}
}

// follower remembers what it has logged. Its Config is the one in effect.
type follower struct {
	FollowOptions
	lastError string   // logged last; "" = none since the last valid configuration
	pending   []string // changed keys that need a restart
	read      digested // the last read
}

// digested is what a read of the settings has begun with.
type digested struct {
	at     origin
	digest [sha256.Size]byte
}

// same tells that a read would find what the last one has found. The files are still read, but not
// parsed, which takes 0.6 ms and leaves 0.28 MB of garbage. After a problem everything is read again,
// because the problem may be in something else than the files. So are settings with a CA file, whose
// place is checked with each read.
func (f *follower) same() bool {
	at := locate(f.Flags)
	last := f.read
	f.read = digested{at, at.digest()}
	return f.read == last && f.lastError == "" &&
		!slices.ContainsFunc(f.Config.Upstream.Servers, func(s Server) bool { return s.CAFile != "" })
}

func (f *follower) reload() {
	if f.same() {
		reloads.WithLabelValues("unchanged").Inc()
		return
	}
	next, err := resolve(f.Flags)
	if err != nil {
		f.failed(allKept, []error{err})
		return
	}
	var now, pending []string
	for _, k := range next.changes(f.Config) {
		if k.Runtime {
			now = append(now, k.Name)
		} else {
			pending = append(pending, k.Name)
		}
	}
	if len(now) > 0 {
		if err := f.apply(next.applied(f.Config)); err != nil {
			f.failed(allKept, append(next.problems, err))
			return
		}
	}
	if len(pending) > 0 && !slices.Equal(pending, f.pending) {
		f.Logger.Warn("changed settings take effect after a restart", zap.Strings("keys", pending))
	}
	f.pending = pending
	if len(now) > 0 {
		reloads.WithLabelValues("changed").Inc()
		f.Logger.Info("changed settings are in effect", zap.Strings("keys", now))
	}
	switch {
	case len(next.problems) > 0:
		f.failed(someIgnored, next.problems)
		return
	case len(now) == 0:
		reloads.WithLabelValues("unchanged").Inc()
	}
	problemCount.Set(0)
	if f.lastError != "" {
		f.lastError = ""
		f.Logger.Info("configuration is valid again")
	}
}

// apply puts settings into effect, unless they conflict with a value that only a restart
// changes.
func (f *follower) apply(c Config) error {
	if problems := c.conflicts(); len(problems) > 0 {
		return errors.Join(problems...)
	}
	if err := f.Apply(c); err != nil {
		return err
	}
	f.Config = c
	return nil
}

// What happens to the settings when some are invalid.
const (
	allKept     = "invalid configuration; keeping the settings in effect"
	someIgnored = "invalid settings are ignored; the others are in effect"
)

// failed logs the problems, unless it logged the same ones last.
func (f *follower) failed(message string, all []error) {
	reloads.WithLabelValues("failed").Inc()
	problemCount.Set(float64(len(all)))
	if err := errors.Join(all...); f.lastError != err.Error() {
		f.lastError = err.Error()
		f.Logger.Error(message, zap.Error(err))
	}
}

// changes returns the keys in which the loaded settings differ from c, except those with a
// rejected value.
func (r resolved) changes(c Config) (keys []Key) {
	for _, k := range Keys() {
		if !r.rejected[k.Name] && !reflect.DeepEqual(r.with(c, k), c) {
			keys = append(keys, k)
		}
	}
	return keys
}

// applied returns c with the loaded values of all run-time keys, except rejected ones.
func (r resolved) applied(c Config) Config {
	for _, k := range Keys() {
		if k.Runtime && !r.rejected[k.Name] {
			c = r.with(c, k)
		}
	}
	return c
}

// with returns c with the loaded value of one key.
func (r resolved) with(c Config, k Key) Config {
	_ = k.set(&c, r.values[k.Name]) // cannot fail: resolve has checked the value
	return c
}

// waitForChange waits for a change or for the interval to pass. It returns false when ctx ends.
func (f *follower) waitForChange(ctx context.Context, watcher *fsnotify.Watcher, watched bool) bool {
	var events <-chan fsnotify.Event
	var failures <-chan error
	if watched {
		events, failures = watcher.Events, watcher.Errors
	}
	timer := f.Clock.NewTimer(f.Interval)
	defer func() { timer.Stop() }()
	changing := false
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C():
			return true
		case <-events:
		case <-failures: //nolint:errcheck // an overflow means that there was a change
		}
		if !changing { // the events that follow belong to the same change
			changing = true
			timer.Stop()
			timer = f.Clock.NewTimer(debounce)
		}
	}
}
