package meter

import (
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"rockpool.dev/sidecar/api/request"
)

// known are the counters of the kinds of requests that came before, so that a request makes no
// labels.
type known struct {
	requests remembered[requestKind, counters]
	attempts remembered[attemptKind, *direction]
}

// counters are those of a request that has ended.
type counters struct {
	requests      prometheus.Counter
	upstream, own prometheus.Observer
}

// kind is what a request asks for, as far as labels show it.
type kind struct{ verb, group, resource, subresource string }

// kindOf returns the kind of a request. Paths that are no resources have none: there are too many.
func kindOf(i *request.Info) kind {
	if !i.IsResource {
		return kind{}
	}
	return kind{i.Verb, i.Group, i.Resource, i.Subresource}
}

// kept returns a copy to keep, because the names are parts of a path, which may be long. It reports
// false if the kind itself is too long, or has no resource.
func (k kind) kept(method string) (kind, bool) {
	ok := k.resource != "" && len(method)+len(k.verb)+len(k.group)+len(k.resource)+len(k.subresource) <= maxKind
	if ok {
		k = kind{strings.Clone(k.verb), strings.Clone(k.group), strings.Clone(k.resource), strings.Clone(k.subresource)}
	}
	return k, ok
}

// requestKind are the requests that have the same counters.
type requestKind struct {
	method string
	status int
	source Source
	kind
}

// attemptKind are the attempts whose bytes are counted together.
type attemptKind struct {
	agent, method string
	kind
}

const (
	// maxKind bounds the names of a kind together, in bytes.
	maxKind = 256
	// maxKnown bounds the kinds that are remembered. Further ones take longer.
	maxKnown = 500
)

// remembered has a value for each of the first maxKnown kinds.
type remembered[K comparable, V any] struct {
	mu     sync.RWMutex
	values map[K]V
}

func (r *remembered[K, V]) get(k K) (v V, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	v, ok = r.values[k]
	return v, ok
}

func (r *remembered[K, V]) put(k K, v V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.values == nil {
		r.values = map[K]V{}
	}
	if len(r.values) < maxKnown {
		r.values[k] = v
	}
}
