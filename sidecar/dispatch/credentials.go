package dispatch

import (
	"net/http"
	"sync"

	"rockpool.dev/sidecar/principal"
)

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

// subjects remembers whose the tokens are that were seen: the same few come with every
// request, and reading one costs as much as all else that is done here.
type subjects struct {
	mu    sync.RWMutex
	known map[string]string // by Authorization header
}

// of gives the subject that a request's token claims, empty if there is none.
func (s *subjects) of(header http.Header) string {
	authorization := header.Get("Authorization")
	s.mu.RLock()
	subject, ok := s.known[authorization]
	s.mu.RUnlock()
	if ok {
		return subject
	}
	_, subject, err := principal.Subject(header)
	if err != nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil || len(s.known) >= maxCredentials {
		s.known = map[string]string{}
	}
	s.known[authorization] = subject
	return subject
}
