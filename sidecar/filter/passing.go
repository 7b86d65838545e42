package filter

import (
	"io"
	"net/http"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// passing is the body of a watch that no filter touches at present. When one does, the stream breaks
// off: its client holds an unfiltered list, and is sent to list again when it comes back.
type passing struct {
	io.ReadCloser
	filter    *Filter
	resource  schema.GroupResource
	userAgent string
	once      sync.Once
}

// pass lets an unfiltered watch through.
func (f *Filter) pass(q *query, resp *http.Response) {
	if !isWatch(resp) {
		return
	}
	p := &passing{ReadCloser: resp.Body, filter: f, resource: q.resource, userAgent: q.request.UserAgent()}
	resp.Body = p
	f.mu.Lock()
	defer f.mu.Unlock()
	f.passing[p] = struct{}{}
	// The settings may have changed since the request was judged.
	if len(f.current.Load().chain(p.resource, p.userAgent).Filters) > 0 {
		p.cut()
	}
}

// cut ends the stream with an error, without waiting for it.
func (p *passing) cut() {
	p.once.Do(func() { p.filter.start(func() { _ = p.ReadCloser.Close() }) })
}

// Close ends the watch.
func (p *passing) Close() error {
	p.filter.mu.Lock()
	delete(p.filter.passing, p)
	p.filter.mu.Unlock()
	return p.ReadCloser.Close()
}
