package cache

import (
	"sync"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/record"
)

// lateEvents are the events of a watch that began while the cache was closed. They are recorded once
// it is open. If the state that the watch's client has by then is not recorded, its collection is
// listed.
type lateEvents struct {
	cache *Cache

	mu     sync.Mutex // held after the lock of the cache
	source record.Source
	format wire.Format
	unread bool   // an event came that cannot be read, so that nobody knows where the client is
	events Events // nil: the cache is closed
	ended  bool
}

// watchLate waits for the cache to be opened, on behalf of a watch.
func (c *Cache) watchLate(source record.Source, format wire.Format) Events {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o := c.open.Load(); o != nil { // meanwhile
		return o.recorder.Watch(source, format)
	}
	if c.opener == nil {
		return discard{}
	}
	e := &lateEvents{cache: c, source: source, format: format}
	if c.late == nil {
		c.late = map[*lateEvents]struct{}{}
	}
	c.late[e] = struct{}{}
	return e
}

// begin begins to record where the client is.
func (e *lateEvents) begin(recorder *record.Recorder) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		return
	}
	e.events = recorder.Resume(e.source, e.format)
	if e.unread {
		e.events.Event(Unreadable())
	}
}

func (e *lateEvents) Event(event wire.Event, m wire.Meta) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.events != nil:
		e.events.Event(event, m)
	case IsUnreadable(event, m):
		e.unread = true
	case event.Type != wire.Error && m.ResourceVersion != "":
		e.source.Info.ResourceVersion = m.ResourceVersion
	}
}

func (e *lateEvents) Difference(changes []record.Change, resourceVersion string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.events != nil {
		e.events.Difference(changes, resourceVersion)
		return
	}
	e.source.Info.ResourceVersion = resourceVersion
}

func (e *lateEvents) Close() {
	e.cache.mu.Lock()
	delete(e.cache.late, e)
	e.cache.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended = true; e.events != nil {
		e.events.Close()
	}
}
