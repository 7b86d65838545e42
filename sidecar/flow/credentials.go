package flow

import "sync"

// credentials are the tokens that principals were last seen with. They are never
// written anywhere.
type credentials struct {
	mu   sync.Mutex
	seen map[string]string // Authorization header by subject
}

func (c *credentials) put(subject, authorization string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil {
		c.seen = map[string]string{}
	}
	if _, ok := c.seen[subject]; !ok && len(c.seen) >= maxCredentials {
		for other := range c.seen { // any: a pod has one or two
			delete(c.seen, other)
			break
		}
	}
	c.seen[subject] = authorization
}

func (c *credentials) get(subject string) (authorization string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	authorization, ok = c.seen[subject]
	return authorization, ok
}
