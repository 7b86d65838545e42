package write

import (
	"context"
	"errors"
	"net/http"
	"time"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/store"
)

// ErrNoToken says that no token of a principal is at hand.
var ErrNoToken = errors.New("the principal has made no request since the start")

// Acceptor answers some writes while the link is down, and reads of the objects that it has
// written so. Its methods may be called from several goroutines.
type Acceptor interface {
	// Handles tells whether the acceptor has anything to do with a request.
	Handles(*request.Info) bool
	// Observe looks at a request that the acceptor handles and the API server has answered.
	// It may read the body of the answer, and leaves all of it to be read.
	Observe(Request, *http.Response)
	// Repeatable tells that the API server may carry a write out a second time without harm.
	// Only such a write is accepted when the link has broken during it.
	Repeatable(Request) bool
	// Answers tells whether Accept is likely to answer a write. A write that has no answer while
	// the link is down may wait for the link.
	Answers(Request) bool
	// Accept answers a request that the acceptor handles. It gives nil for a read that the
	// cache must answer, and for a write that is refused like any other. Errors are
	// ErrNeedsServer, and the API server's own.
	Accept(context.Context, Request) (*http.Response, error)
}

// Evidence is what the API server's answer to the request says.
func (r *Request) Evidence(says store.Says, resourceVersion string) store.Evidence {
	e := store.Evidence{Says: says, Version: resourceVersion, Asked: r.Asked, Told: r.Told, Read: store.Latest}
	if r.Info.IsRead() && r.Info.ResourceVersion != "" {
		e.Read = store.Lagging
	}
	return e
}

// Request is a request that an acceptor handles, with its body.
type Request struct {
	// Principal is the subject of the caller's token. Accept is only called when the caller
	// has proven it; before Observe, the API server's answer has.
	Principal string
	Info      *request.Info
	// Sent is when the request went to the API server.
	Sent time.Time
	// Asked and Told are store.DB.Next when it went, and when its answer came.
	Asked, Told int64
	// ContentType is that of Body.
	ContentType string
	Body        []byte
	// TooLarge tells that the body is larger than is read here. Body is nil then.
	TooLarge bool
	// Recorded gives the object of the request as the API server last showed it, in JSON. It is
	// set for Accept; nil: nothing is recorded.
	Recorded func(context.Context) ([]byte, error)
}
