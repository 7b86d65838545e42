package live

import (
	"context"
	"time"

	"go.uber.org/zap"

	"rockpool.dev/store"
)

// join makes a collection live, on behalf of a read that waits for it. It must leave.
func (s *Collections) join(read *Read) (*collection, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.get(read)
	if err == nil {
		c.read = read
		c.waiters++
		c.notify()
	}
	return c, err
}

// get makes a collection live. The lock is held.
func (s *Collections) get(read *Read) (*collection, error) {
	c := s.open[read.key()]
	if c == nil {
		if s.ctx.Err() != nil {
			return nil, errNotRunning
		}
		from, history, err := follows(&read.Recorded, s.Clock.Now())
		if err != nil {
			return nil, err
		}
		if len(s.open) >= s.Most && !s.evict() {
			return nil, errMost
		}
		c = &collection{
			Collections: s, key: read.key(), form: read.Recorded.Form, read: read,
			version: from, history: history, changed: make(chan struct{}),
		}
		s.open[c.key] = c
		collectionsOpen.Set(float64(len(s.open)))
		s.running.Go(func() { c.follow(s.ctx) })
	}
	c.used = s.Clock.Now()
	return c, nil
}

// Left keeps what a client has watched live for a while, now that the client has gone. It does not
// wait.
func (s *Collections) Left(read Read) {
	if !s.Save || s.Linger == 0 || read.Principal == "" || read.Info.Unrecorded || read.Info.Narrowed {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return
	}
	s.running.Go(func() {
		var err error
		if read.Recorded, err = s.recorded(s.ctx, &read); err == nil && !isRecent(&read.Recorded, s.Clock.Now()) {
			err = s.findNewest(s.ctx, &read)
		}
		if err != nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		_, err = s.get(&read)
		s.Logger.Debug("a collection lingers", zap.String("path", read.Info.Path), zap.Error(err))
	})
}

// leave ends the wait for a collection. One that could not be proven does not linger.
func (s *Collections) leave(c *collection, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.waiters--
	c.used = s.Clock.Now()
	if err != nil && c.waiters == 0 {
		c.finish(err)
	}
}

// evict ends the collection that nobody has waited for the longest. It reports false if somebody
// waits for each.
func (s *Collections) evict() bool {
	var oldest *collection
	for _, c := range s.open {
		if c.waiters == 0 && (oldest == nil || c.used.Before(oldest.used)) {
			oldest = c
		}
	}
	if oldest == nil {
		return false
	}
	oldest.finish(errMost)
	return true
}

// drop ends a collection, if it is live.
func (s *Collections) drop(k key, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.open[k]; c != nil {
		c.finish(err)
	}
}

// use notes that a collection has answered.
func (s *Collections) use(k key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.open[k]; c != nil {
		c.used = s.Clock.Now()
	}
}

func (s *Collections) isLive(k key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.open[k]
	return c != nil && c.caughtUp && c.interrupt != nil
}

// reach waits until a collection has reached a version. It gives up when nothing has come for a while:
// many collections may share a thin link.
func (s *Collections) reach(ctx context.Context, c *collection, version string, quiet time.Duration) error {
	silence := s.Clock.NewTimer(quiet)
	defer silence.Stop()
	for at := ""; ; {
		s.mu.Lock()
		reached, err, changed := !store.NewerVersion(version, c.version), c.err, c.changed
		if reached {
			c.caughtUp = true
		} else if !c.prompt && c.interrupt != nil {
			c.interrupt() // the next connection has a bookmark soon
		}
		if c.version != at {
			at = c.version
			silence.Reset(quiet)
		}
		s.mu.Unlock()
		switch {
		case reached:
			return nil
		case err != nil:
			return err
		}
		select {
		case <-changed:
		case <-silence.C():
			return errSilent
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// finish ends the collection. The lock is held.
func (c *collection) finish(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	delete(c.open, c.key)
	collectionsOpen.Set(float64(len(c.open)))
	if c.interrupt != nil {
		c.interrupt()
	}
	c.notify()
}

// notify wakes all that wait for a change. The lock is held.
func (c *collection) notify() {
	close(c.changed)
	c.changed = make(chan struct{})
}
