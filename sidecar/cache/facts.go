package cache

import (
	"context"
	"time"

	"rockpool.dev/store"
)

// The methods of store.DB that other parts need, for a cache that may be closed and opened later.

// Fact gives a fact about the cluster; see store.DB.
func (c *Cache) Fact(ctx context.Context, key string) (value []byte, at time.Time, err error) {
	if db := c.Store(); db != nil {
		return db.Fact(ctx, key)
	}
	return nil, time.Time{}, nil
}

// PutFact records a fact. A closed cache forgets it: its owner puts it again when it loads what is
// recorded.
func (c *Cache) PutFact(ctx context.Context, key string, value []byte) error {
	if db := c.Store(); db != nil {
		return db.PutFact(ctx, key, value)
	}
	return nil
}

// Rate gives what the link to these servers has carried, in bytes a second; 0: that is not recorded.
func (c *Cache) Rate(ctx context.Context, servers []string) (int64, error) {
	if db := c.Store(); db != nil {
		return db.Rate(ctx, servers)
	}
	return 0, nil
}

// PutRate records what the link carries; see record.Recorder. A closed cache does so when it is open.
func (c *Cache) PutRate(rate store.Rate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o := c.open.Load(); o != nil {
		o.recorder.PutRate(rate)
		return
	}
	c.rate = &rate
}

// Enqueue adds a queued write; see store.DB.
func (c *Cache) Enqueue(ctx context.Context, q store.Queued) (id int64, err error) {
	if db := c.Store(); db != nil {
		return db.Enqueue(ctx, q)
	}
	return 0, ErrClosed
}

// Queued reads a queued write.
func (c *Cache) Queued(ctx context.Context, id int64) (store.Queued, error) {
	if db := c.Store(); db != nil {
		return db.Queued(ctx, id)
	}
	return store.Queued{}, ErrClosed
}

// Outbox gives the queued writes, none of a closed cache.
func (c *Cache) Outbox(ctx context.Context) ([]store.Queued, error) {
	if db := c.Store(); db != nil {
		return db.Outbox(ctx)
	}
	return nil, nil
}

// Dequeue deletes a queued write.
func (c *Cache) Dequeue(ctx context.Context, id int64) error {
	if db := c.Store(); db != nil {
		return db.Dequeue(ctx, id)
	}
	return ErrClosed
}
