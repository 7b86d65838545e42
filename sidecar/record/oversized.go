package record

import (
	"fmt"
	"sync"

	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/api/resource"

	"rockpool.dev/store"
)

// oversized are the collections whose lists do not fit into the cache, with the bytes of their
// objects. Their objects are recorded alone, as many as fit.
type oversized struct {
	cache string
	mu    sync.Mutex
	of    map[store.Scope]int64
}

// put notes the size of a collection, and reports whether it is the first time.
func (o *oversized) put(s store.Scope, bytes int64) (first bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, known := o.of[s]
	o.of[s] = bytes
	oversizedBytes.WithLabelValues(o.cache, collectionName(s)).Set(float64(bytes))
	return !known
}

// remove notes that a collection fits.
func (o *oversized) remove(s store.Scope) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.of[s]; known {
		delete(o.of, s)
		oversizedBytes.DeleteLabelValues(o.cache, collectionName(s))
	}
}

func (o *oversized) has(s store.Scope) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, known := o.of[s]
	return known
}

// collectionName is how a collection is called in the log and in metrics.
func collectionName(s store.Scope) string {
	name := s.Path()
	if s.LabelSelector != "" {
		name += " labelSelector=" + s.LabelSelector
	}
	if s.FieldSelector != "" {
		name += " fieldSelector=" + s.FieldSelector
	}
	return name
}

// tooLarge notes that the list of a scope does not fit into the cache.
func (r *Recorder) tooLarge(s store.Scope, bytes int64) {
	listsTotal.WithLabelValues("too-large").Inc()
	if r.oversized.put(s, bytes) {
		r.log.Warn("a list does not fit into the cache; it is not answered offline, only its objects by name, as many as fit",
			zap.String("collection", collectionName(s)), zap.Int64("bytes", bytes), zap.Int64("maxBytes", r.db.MaxSize()), zap.String("setting", r.setting))
	}
}

// Oversized says which collection of the objects does not fit into the cache, and what to change;
// empty: none. Without a namespace it is about all objects of the resource.
func (r *Recorder) Oversized(res store.Resource, namespace string) string {
	o := &r.oversized
	o.mu.Lock()
	defer o.mu.Unlock()
	for s, bytes := range o.of {
		if s.Of() == res && overlaps(s.Namespace, namespace) {
			return fmt.Sprintf("%s takes %s, and does not fit into the cache of %s: raise %s", collectionName(s), quantity(bytes), quantity(r.db.MaxSize()), r.setting)
		}
	}
	return ""
}

// quantity is a number of bytes as in settings, such as 11Mi.
func quantity(bytes int64) string {
	const mebi = 1 << 20
	return resource.NewQuantity((bytes+mebi-1)/mebi*mebi, resource.BinarySI).String()
}

// split records the items of a list that does not fit into the cache, each alone.
type split struct {
	*snapshot
	kind, apiVersion string
}

func (split) size() int           { return 0 }
func (s split) closes() *snapshot { return s.snapshot }

func (s split) apply(g *group) error {
	if s.broken.Load() {
		return s.rows.Abort(g.tx)
	}
	// The group's positions may be of the collection that is dropped.
	if err := g.settle(); err != nil {
		return err
	}
	return s.rows.Split(g.tx, s.source.singleScope(s.form), s.kind, s.apiVersion)
}
