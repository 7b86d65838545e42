package record

import (
	"encoding/json"
	"errors"

	"k8s.io/apimachinery/pkg/labels"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// maxObserved bounds the objects of a verbatim list that are looked at one by one.
const maxObserved = 1000

var errTooMany = errors.New("too many objects")

// observeList records what a list that is recorded verbatim only, such as a Table, says about its
// objects. whole reports whether it is not only a page. If its objects cannot be known, nothing from
// before counts any more.
func (r *Recorder) observeList(source *Source, answer store.Response, raw []byte, whole bool) {
	objects, err := objectsOf(wire.FormatOf(answer.MediaType), raw)
	if err != nil || answer.Version == "" {
		r.observe(source, source.key(), source.evidence(store.Unknown, answer.Version))
		return
	}
	op := observeObjects{
		observe: observe{recorder: r, resource: source.resource(), key: source.key(), evidence: source.evidence(store.Exists, answer.Version)},
		scope:   source.scope(request.Form{Format: wire.JSON}), objects: objects, whole: whole && !source.Info.Narrowed,
	}
	if !r.enqueue(op) {
		op.lost()
	}
}

// objectsOf returns the metadata of the objects of a Table or a list.
func objectsOf(format wire.Format, raw []byte) (out []store.Object, err error) {
	add := func(m wire.Meta) error {
		if len(out) == maxObserved || m.Name == "" || m.ResourceVersion == "" {
			return errTooMany
		}
		out = append(out, store.Object{Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion})
		return nil
	}
	if format == nil {
		return nil, errNotAnObject
	}
	if m, err := format.ParseMeta(raw); err != nil || m.Kind != "Table" {
		list := format.NewList(func(item []byte) error {
			m, err := format.ParseItem(item)
			if err != nil {
				return err
			}
			return add(m)
		})
		if _, err := list.Write(raw); err != nil {
			return nil, err
		}
		head, err := list.ListMeta()
		if err == nil && !head.HasItems {
			err = errNotAnObject
		}
		return out, err
	}
	var table struct {
		Rows []struct {
			Object struct {
				Metadata struct{ Namespace, Name, UID, ResourceVersion string } `json:"metadata"`
			} `json:"object"`
		} `json:"rows"`
	}
	if err := json.Unmarshal(raw, &table); err != nil {
		return nil, err
	}
	for _, row := range table.Rows {
		o := row.Object.Metadata
		if err := add(wire.Meta{Namespace: o.Namespace, Name: o.Name, UID: o.UID, ResourceVersion: o.ResourceVersion}); err != nil {
			return nil, err
		}
	}
	return out, nil
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
