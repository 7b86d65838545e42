package principal

import (
	"net/http"
	"sync"
)

// maxCredentials bounds the principals, and the tokens, that are kept in memory.
const maxCredentials = 64

// Credentials are the tokens that principals were last seen with. They are in memory only: no
// token is ever written to the disk. The methods may be called from several goroutines.
type Credentials struct {
	own      func() (string, error)
	accepted func(header http.Header, subject string)

	mu    sync.RWMutex
	seen  map[string]string // Authorization header by subject
	whose map[string]string // subject by Authorization header
}

// NewCredentials makes an empty set. Own gives the pod's own current token. The set calls
// accepted for each request for a resource that the API server has authenticated; accepted
// must not block. Nil: nobody wants to know.
func NewCredentials(own func() (string, error), accepted func(header http.Header, subject string)) *Credentials {
	return &Credentials{own: own, accepted: accepted, seen: map[string]string{}, whose: map[string]string{}}
}

// Subject gives the subject that a request's token claims, empty if there is none. It
// remembers the few tokens of a pod, because reading a token costs as much as all else that is
// done to a request.
func (c *Credentials) Subject(header http.Header) string {
	authorization := header.Get("Authorization")
	c.mu.RLock()
	subject, ok := c.whose[authorization]
	c.mu.RUnlock()
	if ok {
		return subject
	}
	_, subject, err := Subject(header)
	if err != nil {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.whose) >= maxCredentials {
		clear(c.whose)
	}
	c.whose[authorization] = subject
	return subject
}

// Observe learns from an answer of the API server that it accepts the token of a request, which
// is the subject's. Answers to requests for documents prove nothing: a gateway in front of the
// API server may show documents to everybody.
func (c *Credentials) Observe(header http.Header, subject string, resource bool, status int) {
	if subject == "" {
		return
	}
	switch status {
	case http.StatusOK, http.StatusCreated, http.StatusNotModified:
		c.Remember(header, subject)
		if c.accepted != nil && resource {
			c.accepted(header, subject)
		}
	}
}

// Remember keeps the token of a request as the newest of its subject.
func (c *Credentials) Remember(header http.Header, subject string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.seen[subject]; !ok && len(c.seen) >= maxCredentials {
		for other := range c.seen { // any: a pod has one or two
			delete(c.seen, other)
			break
		}
	}
	c.seen[subject] = header.Get("Authorization")
}

// Seen gives the Authorization header that a subject was last seen with.
func (c *Credentials) Seen(subject string) (authorization string, ok bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	authorization, ok = c.seen[subject]
	return authorization, ok
}

// Authorization gives the header for a request on behalf of a subject: the pod's own current
// token if the subject is the pod, and otherwise the header that the caller has.
func (c *Credentials) Authorization(subject, otherwise string) string {
	own, err := c.own()
	if err != nil {
		return otherwise
	}
	bearer := "Bearer " + own
	if _, mine, err := Subject(http.Header{"Authorization": {bearer}}); err == nil && mine == subject {
		return bearer
	}
	return otherwise
}
