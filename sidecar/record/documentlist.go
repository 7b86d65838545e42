package record

import (
	"encoding/json"

	"k8s.io/apimachinery/pkg/labels"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// observeList records what a list that is recorded verbatim only, such as a Table, says about its
// objects. whole reports whether it is not only a page. If its objects cannot be known, nothing from
// before counts any more.
func (r *Recorder) observeList(source *Source, answer store.Response, raw []byte, whole bool) {
	listed, err := wire.Objects(wire.FormatOf(answer.MediaType), raw)
	if err != nil || answer.Version == "" {
		r.observe(source, source.key(), source.evidence(store.Unknown, answer.Version))
		return
	}
	r.observeRows(observeObjects{
		observe: observe{recorder: r, resource: source.resource(), key: source.key(), evidence: source.evidence(store.Exists, answer.Version)},
		scope:   source.scope(request.Form{Format: wire.JSON}), whole: whole && !source.Info.Narrowed,
	}, listed)
}

func (r *Recorder) observeRows(op observeObjects, rows []wire.Meta) {
	op.objects = make([]store.Object, len(rows))
	for i, m := range rows {
		op.objects[i] = store.Object{Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion}
	}
	if !r.enqueue(op) {
		op.lost()
	}
}

// observeObjects records that objects exist at their versions and, of a whole list, that there are
// no others.
type observeObjects struct {
	observe
	scope   store.Scope
	objects []store.Object
	whole   bool
}

func (o observeObjects) size() int { return overhead * (1 + len(o.objects)) }

func (o observeObjects) apply(g *group) error {
	return g.tx.ObserveObjects(o.scope, o.objects, o.whole, o.evidence, o.matches)
}

// matches reports whether an object with these labels is selected. If that is unknown, it may be.
func (o observeObjects) matches(object string) bool {
	var set labels.Set
	selector, err := labels.Parse(o.scope.LabelSelector)
	return err != nil || json.Unmarshal([]byte(object), &set) != nil || selector.Matches(set)
}
