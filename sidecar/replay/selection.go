package replay

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/store"
)

// selection is a complete collection and the part of it that was requested.
type selection struct {
	collection store.Collection
	conversion
	within store.Range
	labels labels.Selector // nil: all
	fields []condition     // not covered by within
}

// cover chooses the collection that answers the request.
func (r *Replayer) cover(ctx context.Context, q Request) (selection, error) {
	info := q.Info
	if info.Continue != "" {
		return selection{}, apierrors.NewResourceExpired("The provided continue parameter is " +
			"from before the link to the API server went down. Start the list without it.")
	}
	if info.Narrowed {
		return selection{}, fmt.Errorf("%w: no response to this request, whose parameters are not known", ErrNotRecorded)
	}
	all, err := r.db.Collections(ctx, q.Principal, info.Group, info.Version, info.Resource)
	if err != nil {
		return selection{}, err
	}
	s, ok := choose(all, info)
	if !ok {
		return selection{}, fmt.Errorf("%w: no complete list of %s covers this request%s", ErrNotRecorded, info.Resource, r.oversized(q))
	}
	if err := r.certain(q); err != nil {
		return selection{}, err
	}
	if err := atVersion(s.collection, info); err != nil {
		return selection{}, err
	}
	r.rec.Used(s.collection.ID)
	if info.ResourceVersionMatch == "Exact" && info.ResourceVersion != "" {
		return s, nil // the client asks for that very state
	}
	by, err := r.overtaken(ctx, q, &s)
	if err == nil && by != "" {
		err = fmt.Errorf("%w: the latest list of %s (%s)%s", ErrNotRecorded, info.Resource, by, r.oversized(q))
	}
	return s, err
}

// certain returns ErrNotRecorded if a client was told something of the objects that the store does
// not have.
func (r *Replayer) certain(q Request) error {
	if r.rec.Doubtful(q.resource(), store.Key{Namespace: q.Info.Namespace}) {
		return fmt.Errorf("%w: %s have changed, and that could not be recorded", ErrNotRecorded, q.Info.Resource)
	}
	return nil
}

// overtaken says what is known that is newer than a selection; empty: nothing.
func (r *Replayer) overtaken(ctx context.Context, q Request, s *selection) (by string, err error) {
	return r.db.Overtaken(ctx, s.collection, s.whole(q.Info, &r.selectors))
}

// oversized says which collection is too large for the cache, behind a semicolon; empty: none.
func (r *Replayer) oversized(q Request) string {
	if text := r.rec.Oversized(q.resource(), q.Info.Namespace); text != "" {
		return "; " + text
	}
	return ""
}

// whole says which objects, of any collection, the requested part is of.
func (s *selection) whole(info request.Info, parsed *selectors) store.Selection {
	selector, err := labels.Parse(info.LabelSelector)
	conditions, known := parseConditions(info)
	whole := store.Selection{Range: s.within, Matches: parsed.match, Labels: func(object string) (bool, error) {
		return matches(selector, object)
	}}
	if err != nil {
		whole.Labels = func(string) (bool, error) { return true, nil }
	}
	if known {
		whole.Fields = func(c store.Collection, o store.Object) (bool, error) {
			for _, cond := range conditions {
				if !cond.ofMetadata() && c.Representation != string(request.Object) {
					continue // the recorded form does not have the field
				}
				if ok, err := cond.matches(formOf(c).Format, o); !ok || err != nil {
					return ok, err
				}
			}
			return true, nil
		}
	}
	return whole
}

func matches(selector labels.Selector, object string) (bool, error) {
	set, err := parseLabels(object)
	return err == nil && selector.Matches(set), err
}

// parseLabels parses the recorded labels of an object.
func parseLabels(object string) (set labels.Set, err error) {
	if err := json.Unmarshal([]byte(object), &set); err != nil {
		return nil, fmt.Errorf("labels: %w: %w", store.ErrCorrupt, err)
	}
	return set, nil
}

// choose finds the newest complete collection that contains everything requested, in a form that
// the client accepts or that can be converted to one. A collection that needs a conversion must be
// newer than all others.
func choose(all []store.Collection, info request.Info) (best selection, ok bool) {
	forms := info.Forms()
	for _, converting := range []bool{false, true} {
		for _, c := range all {
			needsNewer := converting && ok && best.convert == nil
			if c.State != store.Complete || needsNewer && !newer(c, best.collection) {
				continue
			}
			s, found := narrow(c, info)
			if found {
				s.conversion, found = findConversion(c, forms, converting)
			}
			if found && (!ok || s.better(&best, info, forms)) {
				best, ok = s, true
			}
		}
	}
	return best, ok
}

// better reports whether a selection is preferred to another, if both or neither are converted: the
// newer one, then an exact match of the request, then the form that the client prefers.
func (s *selection) better(other *selection, info request.Info, forms []request.Form) bool {
	a, b := s.collection, other.collection
	switch {
	case newer(a, b):
		return true
	case newer(b, a):
		return false
	case exact(a, info) != exact(b, info):
		return exact(a, info)
	}
	return slices.Index(forms, s.to) < slices.Index(forms, other.to)
}

// newer reports whether a collection is of a later state than another.
func newer(a, b store.Collection) bool {
	return a.ResourceVersion != b.ResourceVersion && a.Position().Newer(b.Position())
}

func exact(c store.Collection, info request.Info) bool {
	return c.Namespace == info.Namespace && c.LabelSelector == info.LabelSelector && c.FieldSelector == info.FieldSelector
}

// narrow returns the requested part of a collection, if the collection contains it.
func narrow(c store.Collection, info request.Info) (selection, bool) {
	s := selection{collection: c}
	if c.Namespace != info.Namespace {
		if c.Namespace != "" {
			return s, false
		}
		s.within.Namespace = info.Namespace
	}
	if c.LabelSelector != info.LabelSelector {
		selector, err := labels.Parse(info.LabelSelector)
		if c.LabelSelector != "" || err != nil {
			return s, false
		}
		s.labels = selector
	}
	if c.FieldSelector == info.FieldSelector {
		return s, true
	}
	conditions, ok := parseConditions(info)
	if c.FieldSelector != "" || !ok {
		return s, false
	}
	for _, cond := range conditions {
		isOne := !cond.not && cond.value != ""
		switch {
		case isOne && cond.label == nameLabel && s.within.Name == "":
			s.within.Name = cond.value
		case isOne && cond.label == namespaceLabel && s.within.Namespace == "":
			s.within.Namespace = cond.value
		case cond.ofMetadata() || c.Representation == string(request.Object):
			s.fields = append(s.fields, cond)
		default: // the recorded form does not have the field
			return s, false
		}
	}
	return s, true
}

// atVersion returns nil if a collection may answer for the requested resourceVersion
// (https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions).
func atVersion(c store.Collection, info request.Info) error {
	rv := info.ResourceVersion
	if rv == "" || rv == "0" {
		return nil
	}
	if info.ResourceVersionMatch == "Exact" {
		if rv != c.ResourceVersion {
			return apierrors.NewResourceExpired("The requested resourceVersion is " +
				"not the one recorded before the link to the API server went down.")
		}
		return nil
	}
	if isOlder(c.ResourceVersion, rv) {
		return tooLarge()
	}
	return nil
}

func (s *selection) matches(o store.Object) (bool, error) {
	if ok, err := s.matchesLabels(o.Labels); err != nil || !ok {
		return false, err
	}
	for i := range s.fields {
		if ok, err := s.fields[i].matches(s.from.Format, o); err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

// matchesLabels reports whether an object with these labels is selected by its labels.
func (s *selection) matchesLabels(object string) (bool, error) {
	if s.labels == nil {
		return true, nil
	}
	return matches(s.labels, object)
}
