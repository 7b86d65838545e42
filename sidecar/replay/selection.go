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
	all, err := r.db.Collections(ctx, q.Principal, info.Group, info.Version, info.Resource)
	if err != nil {
		return selection{}, err
	}
	s, ok := choose(all, info)
	if !ok {
		return selection{}, fmt.Errorf("%w: no complete list of %s covers this request", ErrNotRecorded, info.Resource)
	}
	r.used(s.collection.ID)
	return s, atVersion(s.collection, info)
}

// choose finds the newest complete collection that contains everything requested, in a form that
// the client accepts or that can be converted to one. A collection that needs a conversion must be
// newer than all others.
func choose(all []store.Collection, info request.Info) (best selection, ok bool) {
	forms := info.Forms()
	for _, converting := range []bool{false, true} {
		for _, c := range all {
			needsNewer := converting && ok && best.convert == nil
			if c.State != store.Complete || needsNewer && !newer(c.ResourceVersion, best.collection.ResourceVersion) {
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
	case a.ResourceVersion != b.ResourceVersion:
		return newer(a.ResourceVersion, b.ResourceVersion)
	case exact(a, info) != exact(b, info):
		return exact(a, info)
	}
	return slices.Index(forms, s.to) < slices.Index(forms, other.to)
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
	if newer(rv, c.ResourceVersion) {
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
	var set labels.Set
	if err := json.Unmarshal([]byte(object), &set); err != nil {
		return false, fmt.Errorf("collection %d: labels: %w: %w", s.collection.ID, store.ErrCorrupt, err)
	}
	return s.labels.Matches(set), nil
}
