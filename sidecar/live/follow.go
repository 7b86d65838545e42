package live

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"rockpool.dev/sidecar/api/origin"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/store"
)

const (
	// prompt is how long a watch may last that somebody waits for. The API server sends a bookmark
	// two seconds before a watch ends, and else about once a minute
	// (k8s.io/apiserver/pkg/storage/cacher, nextBookmarkTime).
	prompt = 3 * time.Second
	// overtime is how much longer than it was asked a watch may last.
	overtime = 5 * time.Second
	// lingerDelay is how long after the end of a client's watch the collection is followed. Most
	// clients watch again at once.
	lingerDelay = time.Second
	// shortest is how long a watch lasts that the API server ends because its time is over.
	shortest = time.Second
)

var (
	errNotRunning = errors.New("the sidecar stops")
	errMost       = errors.New("too many collections are live")
	errEnded      = errors.New("the watch has ended")
	errCut        = errors.New("the watch broke off")
	errSilent     = errors.New("nothing has come for too long")
)

// collection is a live collection: its recorded state is followed by a watch of the sidecar's own.
// The goroutine of follow owns the watch; it ends when nobody needs it any more, with the first
// error, and with Run. The lock of Collections guards the fields from read on.
type collection struct {
	*Collections
	key  key
	form request.Form

	read      *Read  // the latest, whose caller has the watch opened
	version   string // that the watch has reached
	history   history
	caughtUp  bool // it has reached the API server's present once
	waiters   int
	prompt    bool               // a bookmark is to come within prompt
	interrupt context.CancelFunc // ends the present connection; nil: there is none
	changed   chan struct{}      // closed and replaced when any of this changes
	used      time.Time
	err       error // why the watch has ended; nil: it has not
}

// follow has the changes of a collection recorded, over one connection after the other.
func (c *collection) follow(ctx context.Context) {
	c.hold(ctx)
	events := c.begin()
	defer events.Close()
	for {
		r, cancel, ok := c.next(ctx)
		if !ok {
			return
		}
		begun, from := c.Clock.Now(), r.URL.Query().Get("resourceVersion")
		err := c.stream(r, events)
		interrupted := r.Context().Err() != nil
		cancel()
		if err == nil && c.Clock.Since(begun) < shortest {
			err = errEnded
		}
		c.mu.Lock()
		// On a full link its time may be over in the middle of an event. The next connection goes on.
		if errors.Is(err, errCut) && c.version != from {
			err = nil
		}
		c.interrupt, c.prompt = nil, false
		if err != nil && !interrupted {
			c.Logger.Debug("a collection is not live any more", zap.String("path", c.key.Path()), zap.String("resourceVersion", c.version), zap.Error(err))
			c.finish(err)
		}
		c.notify()
		c.mu.Unlock()
	}
}

// hold waits for a while, unless somebody waits for the collection.
func (c *collection) hold(ctx context.Context) {
	c.mu.Lock()
	waiters, changed := c.waiters, c.changed
	c.mu.Unlock()
	if waiters > 0 {
		return
	}
	timer := c.Clock.NewTimer(lingerDelay)
	defer timer.Stop()
	select {
	case <-timer.C():
	case <-changed:
	case <-ctx.Done():
	}
}

// begin begins to record what the watch brings.
func (c *collection) begin() cache.Events {
	c.mu.Lock()
	read := c.read
	r := c.request(context.Background(), prompt)
	c.mu.Unlock()
	return read.Cache.Watch(record.Source{
		Principal: read.Principal, Info: request.Parse(r), Path: r.URL.RequestURI(),
		Started: c.Clock.Now(), Asked: read.Cache.Ask(), Background: true,
	}, c.form.Format)
}

// next is the request for the next connection, and reports whether there is to be one.
func (c *collection) next(ctx context.Context) (*http.Request, context.CancelFunc, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := prompt
	if c.waiters == 0 {
		last = c.used.Add(c.Linger).Sub(c.Clock.Now())
		if last < time.Second || c.key.cache.Watches(c.key.Scope) > 1 { // a client's watch follows it
			c.finish(errEnded)
		}
	}
	if c.err == nil && ctx.Err() != nil {
		c.finish(errNotRunning)
	}
	if c.err != nil {
		return nil, nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, last+overtime)
	c.interrupt, c.prompt = cancel, c.waiters > 0
	return c.request(ctx, last), cancel, true
}

// request is a watch from the version that was reached. The lock is held.
func (c *collection) request(ctx context.Context, last time.Duration) *http.Request {
	read := c.read
	query := read.selectors()
	query.Set("watch", "true")
	query.Set("allowWatchBookmarks", "true")
	query.Set("resourceVersion", c.version)
	query.Set("timeoutSeconds", strconv.Itoa(int(last/time.Second)))
	r := read.HTTP.Clone(ctx)
	r.Method = http.MethodGet
	r.URL.Path, r.URL.RawPath, r.URL.RawQuery = read.Info.Path, "", query.Encode()
	r.Header.Set("Accept", c.form.AcceptWatch())
	r.Header.Del("Accept-Encoding")
	r.Header.Set("Authorization", c.Credentials.Authorization(read.Principal, r.Header.Get("Authorization")))
	return r
}

// stream reads one connection to its end. It gives no error if the API server has ended it, for its
// time was over.
func (c *collection) stream(r *http.Request, events cache.Events) error {
	resp, err := c.Upstream.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	format := c.form.Format
	switch {
	case !origin.FromAPIServer(resp):
		return origin.ErrForeign
	case resp.StatusCode != http.StatusOK || wire.FormatOf(resp.Header.Get("Content-Type")) != format || resp.Header.Get("Content-Encoding") != "":
		return fmt.Errorf("%w: %s", errEnded, resp.Status)
	}
	var failure error
	split := format.NewFrames(func(raw []byte) error {
		if failure == nil {
			failure = c.event(raw, events)
		}
		return failure
	})
	_, err = io.Copy(split, resp.Body)
	if failure == nil && (err != nil || split.Partial()) {
		return fmt.Errorf("%w: %w", errCut, cmp.Or(err, io.ErrUnexpectedEOF))
	}
	return failure
}

// event takes a whole frame.
func (c *collection) event(raw []byte, events cache.Events) error {
	format := c.form.Format
	e, err := format.ParseEvent(raw)
	if err != nil {
		return err
	}
	if e.Type == wire.Error {
		return fmt.Errorf("%w: the API server sends an error", errEnded)
	}
	m, err := format.ParseMeta(e.Object)
	if err != nil {
		return err
	}
	if _, ok := store.ParseVersion(m.ResourceVersion); !ok {
		return fmt.Errorf("%w: an event at version %q", errEnded, m.ResourceVersion)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if store.NewerVersion(c.version, m.ResourceVersion) {
		return errOlder
	}
	if err := c.history.event(e, m); err != nil {
		return err
	}
	events.Event(e, m)
	c.version = m.ResourceVersion
	if e.Type == wire.Bookmark {
		c.prompt, c.caughtUp = false, c.history.version == ""
	}
	c.notify()
	return nil
}
