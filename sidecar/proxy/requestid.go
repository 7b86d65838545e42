package proxy

import (
	"crypto/rand"
	"net/http"
	"strings"
)

const (
	// auditID is the header in which the API server takes the id of a request from its client, and
	// in which each of its answers has the id. The API server's audit log has the same id.
	// https://kubernetes.io/docs/reference/config-api/apiserver-audit.v1/
	auditID = "Audit-Id"
	// otherID is what programs of other projects call it.
	otherID = "X-Request-Id"
	// maxID bounds an id that a client has chosen, in bytes. A UUID has 36.
	maxID = 64
)

// RequestID is the id of a request: the client's own, or a new one, which is made when somebody asks
// for it. The id goes to the log, and into the answer if the sidecar refuses the request. Upstream
// gets only what the client has sent. A RequestID is for one goroutine.
type RequestID struct{ text string }

// requestID returns the id of a request.
func requestID(h http.Header) RequestID {
	for _, name := range [...]string{auditID, otherID} {
		if id := h.Get(name); validID(id) {
			return RequestID{id}
		}
	}
	return RequestID{}
}

// String returns the id, the same each time. It is empty for nil.
func (i *RequestID) String() string {
	if i == nil {
		return ""
	}
	if i.text == "" {
		i.text = rand.Text()
	}
	return i.text
}

// validID reports whether an id can stand in a log line and in a header as it is.
func validID(id string) bool {
	return id != "" && len(id) <= maxID && !strings.ContainsFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.:", r)
	})
}
