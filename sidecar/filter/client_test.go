package filter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/filter/rule"
)

// client lists and watches as an informer does. It holds every object as its bytes without kind, and
// complains of events that do not fit what it holds.
type client struct {
	t      testing.TB
	filter http.RoundTripper
	path   string
	format wire.Format
	asks   string // initialEvents, or empty for a list
	as     string // a representation; empty: whole objects
	cancel context.CancelFunc
	ended  chan struct{}

	mu      sync.Mutex
	changed *sync.Cond
	held    map[string]string // namespace/name
	version string
	events  []string
	lists   int
	cut     context.CancelFunc // of the watch
}

// initialEvents asks for the present state at the begin of a watch (KEP-3157), as client-go does.
const initialEvents = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"

func newClient(t testing.TB, f http.RoundTripper, path string, format wire.Format) *client {
	return startClient(t, &client{filter: f, path: path, format: format})
}

func startClient(t testing.TB, c *client) *client {
	ctx, cancel := context.WithCancel(context.Background())
	c.t, c.cancel, c.ended, c.held = t, cancel, make(chan struct{}), map[string]string{}
	c.changed = sync.NewCond(&c.mu)
	go func() {
		defer close(c.ended)
		c.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-c.ended
	})
	return c
}

func (c *client) run(ctx context.Context) {
	for ctx.Err() == nil {
		if c.asks != "" {
			c.reset()
		} else if err := c.list(ctx); err != nil {
			if ctx.Err() == nil && !apierrors.IsServiceUnavailable(err) {
				c.t.Error(err)
				return
			}
			continue
		}
		for ctx.Err() == nil {
			err := c.watch(ctx)
			if apierrors.IsResourceExpired(err) {
				break
			}
		}
	}
}

// reset has the client begin from nothing.
func (c *client) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held, c.version = map[string]string{}, ""
}

func (c *client) do(ctx context.Context, query string) (*http.Response, error) {
	accept := c.format.MediaType()
	if c.as != "" {
		accept += ";g=meta.k8s.io;v=v1;as=" + c.as
	}
	resp, err := c.filter.RoundTrip(newRequest(c.path+query, accept).WithContext(ctx))
	if err == nil && resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, errors.New(resp.Status)
	}
	return resp, err
}

func (c *client) list(ctx context.Context) error {
	resp, err := c.do(ctx, "")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	next := map[string]string{}
	split := c.format.NewList(func(raw []byte) error {
		o := rule.Object{Format: c.format, Raw: raw}
		key, err := o.Key()
		next[key.String()] = string(raw)
		return err
	})
	if _, err := io.Copy(split, resp.Body); err != nil {
		return err
	}
	meta, err := split.ListMeta()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held, c.version = next, meta.ResourceVersion
	c.lists++
	c.changed.Broadcast()
	return nil
}

func (c *client) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.mu.Lock()
	c.cut = cancel
	version, query := c.version, ""
	if c.asks != "" && c.version == "" {
		query = c.asks
		clear(c.held)
	}
	c.mu.Unlock()
	resp, err := c.do(ctx, "?watch=true&allowWatchBookmarks=true&resourceVersion="+version+query)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = resp.Body.Close() })
	defer stop()
	defer resp.Body.Close()
	_, err = io.Copy(c.format.NewFrames(c.frame), resp.Body)
	return err
}

func (c *client) frame(raw []byte) error {
	event, err := c.format.ParseEvent(raw)
	if err != nil {
		return err
	}
	if event.Type == wire.Error {
		return apierrors.NewResourceExpired("the watch says so")
	}
	meta, err := c.format.ParseMeta(event.Object)
	if err != nil {
		return err
	}
	inner, err := c.format.Inner(event.Object)
	if err != nil {
		return err
	}
	if bare, ok := c.format.Bare(event.Object); ok {
		inner = bare
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if meta.InitialEventsEnd {
		c.lists++
	}
	if c.asks == "" || c.version != "" || meta.InitialEventsEnd {
		c.version = meta.ResourceVersion
	}
	key := meta.Namespace + "/" + meta.Name
	_, held := c.held[key]
	c.events = append(c.events, strings.TrimSuffix(event.Type+" "+key, " /"))
	switch event.Type {
	case wire.Added, wire.Modified:
		if held == (event.Type == wire.Added) {
			c.t.Errorf("%s of %s, held before: %v; events: %q", event.Type, key, held, c.events)
		}
		c.held[key] = string(inner)
	case wire.Deleted:
		if !held {
			c.t.Errorf("DELETED of %s, which was not held; events: %q", key, c.events)
		}
		delete(c.held, key)
	}
	c.changed.Broadcast()
	return nil
}

// breakOff breaks the watch off. The client goes on from its last version.
func (c *client) breakOff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut != nil {
		c.cut()
	}
}

// waitFor returns when a condition on what the client holds is true.
func (c *client) waitFor(what string, condition func() bool) {
	c.t.Helper()
	expired := false
	timer := time.AfterFunc(20*time.Second, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		expired = true
		c.changed.Broadcast()
	})
	defer timer.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for !condition() {
		if expired {
			c.t.Fatalf("%s: the client holds %q at %s; events: %q", what, c.held, c.version, c.events)
		}
		c.changed.Wait()
	}
}

// holds waits until the client holds exactly some objects.
func (c *client) holds(what string, want map[string]string) {
	c.t.Helper()
	c.waitFor(fmt.Sprintf("%s: wanted %q", what, want), func() bool { return c.lists > 0 && (c.asks == "" || c.version != "") && maps.Equal(c.held, want) })
}
