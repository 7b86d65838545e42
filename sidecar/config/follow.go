package config

import (
	"context"
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
	// DefaultInterval is how often the file is read even if nothing is reported
	// about it: inotify may be out of watches, and it does not tell of a file
	// elsewhere that is read through a link.
	DefaultInterval = 30 * time.Second
	// settle is how long a change may take. A file that is written in place is
	// empty, and then half, for a moment.
	settle = 100 * time.Millisecond
)

var reloads = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "rockpool_config_reloads_total",
	Help: "Readings of configuration file and annotations while the sidecar runs, by result: changed, unchanged, failed (for what is bad, the settings in effect stay).",
}, []string{"result"})

var problemCount = promauto.NewGauge(prometheus.GaugeOpts{
	Name: "rockpool_config_problems",
	Help: "What is wrong in configuration file and annotations now. The log says what it is.",
})

// FollowOptions say whose changes are followed, and what they change.
type FollowOptions struct {
	Flags  *pflag.FlagSet // as for Load
	Config Config         // in effect at the start
	// Apply is called with the settings that are to be in effect when one of the
	// run-time keys has changed. All other keys in it stay what they were at the
	// start. When it fails nothing must have changed.
	Apply    func(Config) error
	Interval time.Duration    // 0 = DefaultInterval
	Clock    clock.WithTicker // nil = the system's
	Logger   *zap.Logger      // nil = none
}

// Follow loads the settings again whenever the configuration file or the annotations
// change, until ctx ends; it returns nil then, and at once when there is no file to
// follow. A file that is named itself and has anything wrong in it changes nothing. In
// a directory, what is wrong leaves the setting that it is about as it is.
//
// viper's own WatchConfig is not used: it cannot be stopped, and reads the file
// without checking it.
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
		o.Logger.Warn("cannot watch the configuration file; it is read at intervals only", zap.Duration("interval", o.Interval), zap.Error(err))
	} else {
		defer watcher.Close()
	}
	f := &follower{FollowOptions: o}
	for {
		// Before the read and each time, as package account does it.
		watched := watcher != nil && watcher.Add(locate(o.Flags).watched()) == nil
		f.reload()
		if !f.idle(ctx, watcher, watched) {
			return nil
		}
	}
}

// follower remembers what it has told already. Its Config is what is in effect.
type follower struct {
	FollowOptions
	failing string   // the error that was logged last; "" = none since the last good file
	later   []string // keys that wait for a restart
}

func (f *follower) reload() {
	next, err := resolve(f.Flags)
	if err != nil {
		f.failed([]error{err})
		return
	}
	var now, later []string
	for _, k := range next.changes(f.Config) {
		if k.Runtime {
			now = append(now, k.Name)
		} else {
			later = append(later, k.Name)
		}
	}
	if len(now) > 0 {
		if err := f.put(next.applied(f.Config)); err != nil {
			f.failed(append(next.problems, err))
			return
		}
	}
	if len(later) > 0 && !slices.Equal(later, f.later) {
		f.Logger.Warn("a changed setting takes effect after a restart", zap.Strings("keys", later))
	}
	f.later = later
	if len(now) > 0 {
		reloads.WithLabelValues("changed").Inc()
		f.Logger.Info("changed settings are in effect", zap.Strings("keys", now))
	}
	switch {
	case len(next.problems) > 0:
		f.failed(next.problems)
		return
	case len(now) == 0:
		reloads.WithLabelValues("unchanged").Inc()
	}
	problemCount.Set(0)
	if f.failing != "" {
		f.failing = ""
		f.Logger.Info("the configuration is good again")
	}
}

// put makes settings hold. What is good in the file may still be at odds with what
// waits for a restart.
func (f *follower) put(c Config) error {
	if problems := c.conflicts(); len(problems) > 0 {
		return errors.Join(problems...)
	}
	if err := f.Apply(c); err != nil {
		return err
	}
	f.Config = c
	return nil
}

// failed tells, once, what is bad.
func (f *follower) failed(all []error) {
	reloads.WithLabelValues("failed").Inc()
	problemCount.Set(float64(len(all)))
	if err := errors.Join(all...); f.failing != err.Error() {
		f.failing = err.Error()
		f.Logger.Error("the configuration is bad; for that, the settings in effect stay", zap.Error(err))
	}
}

// changes gives the keys in which the loaded settings differ from c, but for those of
// which the loaded value is bad.
func (r resolved) changes(c Config) (keys []Key) {
	for _, k := range Keys() {
		if !r.left[k.Name] && !reflect.DeepEqual(r.with(c, k), c) {
			keys = append(keys, k)
		}
	}
	return keys
}

// applied gives c with the loaded values of all run-time keys that have good ones.
func (r resolved) applied(c Config) Config {
	for _, k := range Keys() {
		if k.Runtime && !r.left[k.Name] {
			c = r.with(c, k)
		}
	}
	return c
}

// with gives c with the loaded value of one key.
func (r resolved) with(c Config, k Key) Config {
	_ = k.set(&c, r.values[k.Name]) // resolve has seen it accepted
	return c
}

// idle waits for a change, for the time to pass, or for ctx: then it gives false.
func (f *follower) idle(ctx context.Context, watcher *fsnotify.Watcher, watched bool) bool {
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
		if !changing { // the events that follow are the same change's
			changing = true
			timer.Stop()
			timer = f.Clock.NewTimer(settle)
		}
	}
}
