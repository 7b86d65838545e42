package webhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// MaxReviewBytes limits the body of a review. An API server accepts objects of at most 3 MiB,
	// and a review of a CREATE has one.
	MaxReviewBytes = 4 << 20
	// maxReading limits the total of all bodies in progress: any program that reaches the port may
	// send bodies, and parsed they take several times as much memory.
	maxReading = 2 * MaxReviewBytes
	// freeBytes of each body are not counted. A connection takes more memory than that anyway.
	freeBytes = 4 << 10
	// bodyTimeout is how long a body may take, after the headers. An API server sends it with them,
	// and gives up after 5 s.
	bodyTimeout = 2 * time.Second
)

// bodies reads bodies. What counts are the bytes that have come, not the announced ones: a
// connection that sends nothing takes nothing from the others.
type bodies struct {
	memory *semaphore.Weighted // bytes of maxReading
}

// errBusy means that other bodies have used up the memory for too long.
var errBusy = errors.New("the bodies of other requests use up the memory; send the review again")

// read returns the body. The caller must call release when it no longer needs it. An error is
// *http.MaxBytesError for a body that is too large.
func (b *bodies) read(w http.ResponseWriter, r *http.Request) (body []byte, release func(), err error) {
	counted := int64(0)
	defer func() {
		if err != nil {
			b.memory.Release(counted)
		}
	}()
	if r.ContentLength > MaxReviewBytes {
		return nil, nil, &http.MaxBytesError{Limit: MaxReviewBytes}
	}
	ctx, cancel := context.WithTimeout(r.Context(), bodyTimeout)
	defer cancel()
	// A writer without deadlines, as in a test, has no connection that could hang.
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, nil, fmt.Errorf("set the deadline of the body: %w", err)
	}
	source := http.MaxBytesReader(w, r.Body, MaxReviewBytes)
	body = make([]byte, 0, freeBytes)
	for {
		if len(body) == cap(body) {
			// Double it, and count what it grows by before it is allocated.
			more := int64(min(cap(body), MaxReviewBytes+1-cap(body)))
			if b.memory.Acquire(ctx, more) != nil {
				return nil, nil, errBusy
			}
			counted += more
			body = append(make([]byte, 0, int64(cap(body))+more), body...)
		}
		n, err := source.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if errors.Is(err, io.EOF) {
			return body, func() { b.memory.Release(counted) }, nil
		}
		if err != nil {
			return nil, nil, err
		}
	}
}
