package filter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"reflect"
	"sync"
	"time"

	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/filter/rule"
	"rockpool.dev/sidecar/tally"
)

const (
	// firstRetry and lastRetry bound the wait after objects could not be read. It doubles each time.
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
	// refusedRetry is the wait after the API server has refused to show a resource, or has none of
	// that name.
	refusedRetry = 5 * time.Minute
)

// Forms in which a follower reads.
const (
	acceptObjects  = wire.MediaTypeProtobuf + "," + wire.MediaTypeJSON
	acceptMetadata = wire.MediaTypeProtobuf + ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	acceptMetaList = wire.MediaTypeProtobuf + ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
)

// target is what a collection reads.
type target struct {
	resource    schema.GroupResource
	path, query string
	metadata    bool // alone
}

// accept returns the Accept header of a list, or of a watch.
func (t *target) accept(watch bool) string {
	switch {
	case t.resource.Group != "":
		return wire.MediaTypeJSON
	case !t.metadata:
		return acceptObjects
	case watch:
		return acceptMetadata
	}
	return acceptMetaList
}

// collection follows the objects of a target by a list and a watch, as far as they mean something.
type collection[T any] struct {
	target
	filter *Filter
	like   *http.Request
	// read returns what an object means, or false if it means nothing.
	read    func(o *rule.Object) (key types.NamespacedName, meaning T, ok bool, err error)
	changed func() // called without lock, when meanings has changed, or is known for the first time

	settled chan struct{} // closed after the first try
	once    sync.Once
	refused bool // the API server refuses to show the target; of the goroutine of run

	mu sync.Mutex
	// meanings is replaced, never changed; nil: unknown.
	meanings map[types.NamespacedName]T
}

// get returns the meanings, nil if they are unknown.
func (c *collection[T]) get() map[types.NamespacedName]T {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.meanings
}

// run follows until ctx ends.
func (c *collection[T]) run(ctx context.Context) {
	defer c.refuse(false)
	wait := firstRetry
	for ctx.Err() == nil {
		version, err := c.list(ctx)
		c.refuse(apierrors.IsForbidden(err))
		c.once.Do(func() {
			close(c.settled)
			c.changed() // also of a failure, which decides what else to read
		})
		if err == nil {
			wait = firstRetry
			err = c.watch(ctx, version)
			c.refuse(apierrors.IsForbidden(err))
		}
		pause := wait/2 + rand.N(wait/2) //nolint:gosec // chance alone, no secret
		switch {
		case apierrors.IsForbidden(err):
			pause = refusedRetry
			c.filter.Repeated.Write(tally.Line{
				Level: zap.WarnLevel, Message: "the client's account may not list and watch a resource that filters go by; they pass what they cannot decide",
				Kind: []zap.Field{zap.String("resource", c.resource.String()), zap.String("path", c.path)},
			})
		case apierrors.IsNotFound(err):
			pause = refusedRetry
		}
		wait = min(2*wait, lastRetry)
		timer := c.filter.Clock.NewTimer(pause)
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// refuse notes whether the API server refuses to show the target.
func (c *collection[T]) refuse(refused bool) {
	if refused == c.refused {
		return
	}
	c.refused = refused
	change := 1
	if !refused {
		change = -1
	}
	refusedReads.WithLabelValues(c.resource.String()).Add(float64(change))
	c.filter.refusals.add(c.resource.String(), change)
}

// open sends a request, and returns its answer if it can be cut into objects.
func (c *collection[T]) open(ctx context.Context, watch bool, extra string) (*http.Response, wire.Format, error) {
	query := c.query
	if extra != "" && query != "" {
		query += "&"
	}
	resp, err := c.filter.Next.RoundTrip(c.filter.requestOf(ctx, c.like, c.path, query+extra, c.accept(watch)))
	if err != nil {
		return nil, nil, err
	}
	format := wire.FormatOf(resp.Header.Get("Content-Type"))
	if resp.StatusCode != http.StatusOK || format == nil {
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusGone {
			return nil, nil, expired("the version to watch from is too old")
		}
		return nil, nil, apierrors.NewGenericServerResponse(resp.StatusCode, "get", c.resource, "", "", 0, false)
	}
	return resp, format, nil
}

// list reads all objects. It returns their version.
func (c *collection[T]) list(ctx context.Context) (version string, err error) {
	resp, format, err := c.open(ctx, false, "")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	next := map[types.NamespacedName]T{}
	split := format.NewList(func(raw []byte) error {
		key, meaning, ok, err := c.read(&rule.Object{Format: format, Resource: c.resource, Raw: raw})
		if err != nil {
			c.filter.failed("", c.resource, err) // the others count all the same
		} else if ok {
			next[key] = meaning
		}
		return nil
	})
	if _, err := io.Copy(split, resp.Body); err != nil {
		return "", fmt.Errorf("list %s: %w", c.path, err)
	}
	meta, err := split.ListMeta()
	if err != nil {
		return "", fmt.Errorf("list %s: %w", c.path, err)
	}
	c.set(next)
	return meta.ResourceVersion, nil
}

// watch follows the events after a version. It returns an error when it cannot go on.
func (c *collection[T]) watch(ctx context.Context, version string) error {
	for ctx.Err() == nil {
		before := version
		if err := c.stream(ctx, &version); err != nil {
			return err
		}
		if version == before { // no event came, so an end at once would come again at once
			return errors.New("the watch has ended")
		}
	}
	return ctx.Err()
}

func (c *collection[T]) stream(ctx context.Context, version *string) error {
	resp, format, err := c.open(ctx, true, "watch=true&allowWatchBookmarks=true&resourceVersion="+url.QueryEscape(*version))
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = resp.Body.Close() })
	defer stop()
	defer resp.Body.Close()
	split := format.NewFrames(func(raw []byte) error {
		event, err := format.ParseEvent(raw)
		if err != nil {
			return err
		}
		if event.Type == wire.Error { // of which 410 is the usual one
			return errors.New("the watch has ended with an error")
		}
		meta, err := format.ParseMeta(event.Object)
		if err != nil {
			return err
		}
		if meta.ResourceVersion != "" {
			*version = meta.ResourceVersion
		}
		if event.Type == wire.Bookmark {
			return nil
		}
		inner, err := format.Inner(event.Object)
		if err != nil {
			return err
		}
		c.event(event.Type, &rule.Object{Format: format, Resource: c.resource, Raw: inner})
		return nil
	})
	if _, err := io.Copy(split, resp.Body); err != nil {
		return fmt.Errorf("watch %s: %w", c.path, err)
	}
	return nil
}

// event takes note of a change of one object.
func (c *collection[T]) event(kind string, o *rule.Object) {
	key, meaning, ok, err := c.read(o)
	if err != nil {
		c.filter.failed("", c.resource, err)
		return
	}
	ok = ok && kind != wire.Deleted
	before, was := c.get()[key]
	if ok == was && (!ok || reflect.DeepEqual(before, meaning)) {
		return
	}
	next := maps.Clone(c.get()) // only the goroutine of run replaces it
	if delete(next, key); ok {
		next[key] = meaning
	}
	c.set(next)
}

func (c *collection[T]) set(next map[types.NamespacedName]T) {
	c.mu.Lock()
	same := c.meanings != nil && reflect.DeepEqual(c.meanings, next)
	if !same {
		c.meanings = next
	}
	c.mu.Unlock()
	if !same {
		c.changed()
	}
}
