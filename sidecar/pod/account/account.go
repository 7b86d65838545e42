// Package account maintains the service-account directory that the pod's applications see: a
// copy of the kubelet's directory, with the pod's own CA as the first in ca.crt, so that
// applications trust the sidecar.
//
// The kubelet rotates tokens while the pod runs, and the copy follows. Its layout is that of
// the kubelet's own volumes, because client libraries watch for it: files are links through
// ..data, and one rename of ..data changes them all.
//
// The package only reads and writes files. It does not parse tokens.
package account

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
	"k8s.io/utils/clock"
)

// The files that every service-account directory has.
// https://kubernetes.io/docs/concepts/security/service-accounts/
const (
	TokenFile     = "token"
	CAFile        = "ca.crt"
	NamespaceFile = "namespace"
)

const (
	// DefaultInterval is how often the source is read even if inotify reports no change:
	// inotify may be out of watches.
	DefaultInterval = 30 * time.Second
	firstRetry      = time.Second
)

var syncs = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "rockpool_account_syncs_total",
	Help: "Reads of the pod's service-account directory, by result: changed, unchanged, failed.",
}, []string{"result"})

// Options configure a Mirror.
type Options struct {
	Source   string           // the kubelet's directory
	Mirror   string           // the copy; created if missing; nothing else may write there
	CAPEM    []byte           // the pod's own CA, put first into ca.crt; ends with a newline
	Interval time.Duration    // 0 = DefaultInterval
	Clock    clock.WithTicker // nil = the system's
	Logger   *zap.Logger      // nil = none
}

// Mirror is the copy. It is safe for concurrent use.
type Mirror struct {
	o Options

	mu sync.Mutex // one Sync at a time
}

// New returns a Mirror that has not touched any file yet.
func New(o Options) *Mirror {
	if o.Interval <= 0 {
		o.Interval = DefaultInterval
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	return &Mirror{o: o}
}

// Token returns the pod's own token, as the kubelet mounts it now.
func (m *Mirror) Token() (string, error) {
	path := filepath.Join(m.o.Source, TokenFile)
	content, err := os.ReadFile(path)
	if err != nil {
		return "", explain(err)
	}
	token := strings.TrimSpace(string(content))
	if token == "" {
		return "", fmt.Errorf("%s: is empty", path)
	}
	return token, nil
}

// Sync updates the copy once. On an error an existing copy stays as it was, because it may be
// valid for a long time. If there is no copy yet and only single files are missing, Sync
// copies the others, and the error names the missing ones.
func (m *Mirror) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed, err := m.sync()
	switch {
	case err != nil:
		syncs.WithLabelValues("failed").Inc()
	case changed:
		syncs.WithLabelValues("changed").Inc()
	default:
		syncs.WithLabelValues("unchanged").Inc()
	}
	return err
}

func (m *Mirror) sync() (changed bool, err error) {
	files, err := readSource(m.o.Source, readTree)
	if err != nil {
		return false, fmt.Errorf("service-account directory: %w", explain(err))
	}
	var missing []error
	for _, name := range []string{TokenFile, CAFile} {
		if len(strings.TrimSpace(string(files[name]))) == 0 {
			missing = append(missing, explain(&fs.PathError{Op: "read", Path: filepath.Join(m.o.Source, name), Err: fs.ErrNotExist}))
		}
	}
	if len(missing) > 0 && published(m.o.Mirror) {
		return false, errors.Join(missing...)
	}
	// The pod's CA is the first, because some libraries read only one certificate: keytool,
	// Java's generateCertificate, .NET's X509Certificate2.
	files[CAFile] = slices.Concat(m.o.CAPEM, files[CAFile])
	changed, err = publish(m.o.Mirror, files, m.o.Clock.Now())
	if err != nil {
		missing = append(missing, fmt.Errorf("copy of the service-account directory: %w", err))
	}
	return changed, errors.Join(missing...)
}

// explain adds a hint to an error that has one usual cause.
func explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w; is automountServiceAccountToken false, or the volume not mounted into the sidecar?", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; the sidecar's user may not read it: set the pod's securityContext.fsGroup or the volume's defaultMode", err)
	}
	return err
}

// Run updates the copy until ctx ends, and then returns nil. After a failure it retries. It
// logs the first failure and the recovery.
func (m *Mirror) Run(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		m.o.Logger.Warn("cannot watch the service-account directory; reading it at intervals only",
			zap.Duration("interval", m.o.Interval), zap.Error(err))
	} else {
		defer watcher.Close()
	}
	var lastError string
	retry := firstRetry
	for {
		// Add the watch before the read, so that no change between the two is missed. Add it
		// each time, because a replaced directory takes its watch along.
		watched := watcher != nil && watcher.Add(m.o.Source) == nil
		wait := m.o.Interval
		if err := m.Sync(); err != nil {
			if lastError != err.Error() {
				lastError = err.Error()
				m.o.Logger.Error("cannot copy the service-account directory; applications keep the old copy", zap.Error(err))
			}
			wait = min(retry, wait)
			retry = 2 * wait
		} else {
			if lastError != "" {
				lastError = ""
				m.o.Logger.Info("the service-account directory is copied again")
			}
			retry = firstRetry
		}
		if !m.waitForChange(ctx, watcher, watched, wait) {
			return nil
		}
	}
}

// waitForChange waits for a change or for wait to pass. It returns false when ctx ends.
func (m *Mirror) waitForChange(ctx context.Context, watcher *fsnotify.Watcher, watched bool, wait time.Duration) bool {
	timer := m.o.Clock.NewTimer(wait)
	defer timer.Stop()
	var events <-chan fsnotify.Event
	var failures <-chan error
	if watched {
		events, failures = watcher.Events, watcher.Errors
	}
	select {
	case <-ctx.Done():
		return false
	case <-timer.C():
	case <-events:
		// One update by the kubelet causes several events: one read serves all of them.
		for len(events) > 0 {
			<-events
		}
	case <-failures: //nolint:errcheck // an overflow means that there was a change
	}
	return true
}
