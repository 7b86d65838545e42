package origin

import (
	"io"
	"net/http"
	"sync"
)

// OnAPIServer calls believe with an answer if it is the API server's, at most once. believe may
// replace the body. An answer with an Audit-Id is believed at once, and its body is not touched.
// For others the first bytes of the body decide while the client reads them, in the goroutine of
// Read. The client gets each byte as soon as it is decided whose it is.
func OnAPIServer(resp *http.Response, believe func(*http.Response)) {
	answer := answerOf(resp)
	switch answer.Verdict() {
	case APIServer:
		believe(resp)
	case Undecided:
		resp.Body = &undecided{resp: *resp, answer: answer, believe: believe}
	}
}

// FromAPIServer reports whether an answer is the API server's. Without an Audit-Id it waits for
// the first bytes of the body, which can still be read from resp.Body afterwards.
func FromAPIServer(resp *http.Response) bool {
	answer := answerOf(resp)
	var buf []byte
	var failure error
	for answer.Verdict() == Undecided {
		if buf == nil {
			buf = make([]byte, MaxPeek)
		}
		failure = answer.read(resp, buf)
	}
	if len(answer.Body) > 0 || failure != nil {
		resp.Body = &rejoined{prefix: answer.Body, failure: failure, ReadCloser: resp.Body}
	}
	return answer.Verdict() == APIServer
}

func answerOf(resp *http.Response) Answer {
	return Answer{
		Status: resp.StatusCode, Header: resp.Header,
		Complete: resp.Body == nil || resp.Body == http.NoBody,
	}
}

// read reads the next bytes of the body into the answer.
func (a *Answer) read(resp *http.Response, buf []byte) error {
	n, err := resp.Body.Read(buf)
	a.Body = append(a.Body, buf[:n]...)
	// A client that knows the length may not read on to the end.
	a.Complete = err != nil || (resp.ContentLength > 0 && int64(len(a.Body)) >= resp.ContentLength)
	return err
}

// undecided is a body whose beginning has not been read yet. Close may be called while a Read
// waits.
type undecided struct {
	resp    http.Response // with the body from upstream
	answer  Answer        // used by Read
	believe func(*http.Response)

	mu      sync.Mutex
	decided io.ReadCloser // nil: not yet
	closed  bool
}

func (b *undecided) Read(p []byte) (int, error) {
	body, closed := b.state()
	var failure error
	for ; body == nil; body, closed = b.state() {
		if closed {
			return 0, http.ErrBodyReadAfterClose
		}
		if len(p) == 0 {
			return 0, nil
		}
		failure = b.answer.read(&b.resp, p)
		if verdict := b.answer.Verdict(); verdict != Undecided {
			b.decide(verdict, failure)
		}
	}
	return body.Read(p)
}

func (b *undecided) state() (decided io.ReadCloser, closed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.decided, b.closed
}

func (b *undecided) decide(verdict Verdict, failure error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.resp.Body = &rejoined{prefix: b.answer.Body, failure: failure, ReadCloser: b.resp.Body}
	b.answer.Body = nil
	if verdict == APIServer {
		b.believe(&b.resp)
	}
	b.decided = b.resp.Body
}

func (b *undecided) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return b.resp.Body.Close()
}

// rejoined is a body whose beginning was read before.
type rejoined struct {
	prefix  []byte
	failure error // of the read that gave the last of prefix; io.EOF: it was all
	io.ReadCloser
}

func (b *rejoined) Read(p []byte) (int, error) {
	if len(b.prefix) > 0 {
		n := copy(p, b.prefix)
		if b.prefix = b.prefix[n:]; len(b.prefix) == 0 {
			b.prefix = nil // frees it
		}
		return n, nil
	}
	if b.failure != nil {
		return 0, b.failure
	}
	return b.ReadCloser.Read(p)
}
