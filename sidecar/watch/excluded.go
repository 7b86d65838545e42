package watch

import (
	"sync"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/record"
)

// Excluded says that the client of a watch is not recorded.
type Excluded struct {
	// Subject is the client, as its token claims. An answer of the API server, or a proof, has
	// confirmed it.
	Subject string
	// Ended reports whether the client is recorded by now.
	Ended func() bool
}

// excludedEvents are the events of a watch whose client is not recorded. From the time when it is,
// the events are.
type excludedEvents struct {
	watches *Watches
	request Request
	format  wire.Format

	mu     sync.Mutex
	unread bool         // an event came that cannot be read, so that nobody knows where the client is
	events cache.Events // nil: not recorded
	ended  bool
}

// record begins to record a watch, whose objects come in a format.
func (s *Watches) record(q Request, source record.Source, format wire.Format) cache.Events {
	if q.Excluded == nil || q.Excluded.Subject == "" {
		return q.Cache.Watch(source, format)
	}
	q.Source = source
	q.Source.Principal = q.Excluded.Subject
	e := &excludedEvents{watches: s, request: q, format: format}
	s.mu.Lock()
	s.excluded[e] = struct{}{}
	s.mu.Unlock()
	e.begin() // the selection may have changed since the request was sent
	return e
}

// Reselect records the watches whose clients are not excluded any more.
func (s *Watches) Reselect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := range s.excluded {
		e.begin()
	}
}

// begin begins to record where the client is, if it is not excluded any more.
func (e *excludedEvents) begin() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended || e.events != nil || !e.request.Excluded.Ended() {
		return
	}
	q := &e.request
	// The list needs a token. Another request may have shown a newer one than the watch has.
	if _, ok := e.watches.Credentials.Seen(q.Source.Principal); !ok {
		e.watches.Credentials.Remember(q.HTTP.Header, q.Source.Principal)
	}
	e.events = q.Cache.Resume(q.Source, e.format)
	if e.unread {
		e.events.Event(cache.Unreadable())
	}
}

func (e *excludedEvents) Event(event wire.Event, m wire.Meta) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.events != nil:
		e.events.Event(event, m)
	case cache.IsUnreadable(event, m):
		e.unread = true
	case event.Type != wire.Error && m.ResourceVersion != "":
		e.request.Source.Info.ResourceVersion = m.ResourceVersion
	}
}

func (e *excludedEvents) Difference(changes []record.Change, resourceVersion string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.events != nil {
		e.events.Difference(changes, resourceVersion)
		return
	}
	e.request.Source.Info.ResourceVersion = resourceVersion
}

func (e *excludedEvents) Close() {
	e.watches.mu.Lock()
	delete(e.watches.excluded, e)
	e.watches.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended = true; e.events != nil {
		e.events.Close()
	}
}
