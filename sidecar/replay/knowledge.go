package replay

import (
	"slices"

	"rockpool.dev/store"
)

// knowledge is what is known about one object.
type knowledge struct {
	store.Known
	namespace string // of the object
	selectors *selectors
	all       []store.Evidence    // about the object
	selecting []*store.Collection // lists that select by labels, and lack the object
	scopes    []store.Observation // about all objects of its namespace or resource
}

func newKnowledge(known store.Known, namespace string, parsed *selectors) *knowledge {
	k := &knowledge{Known: known, namespace: namespace, selectors: parsed}
	for _, o := range known.Observations {
		if o.Name == "" {
			k.scopes = append(k.scopes, o)
		} else {
			k.all = append(k.all, o.Evidence)
		}
	}
	for i := range k.States {
		k.all = append(k.all, k.States[i].Evidence())
	}
	for _, list := range k.Lists {
		if list.LabelSelector == "" {
			k.all = append(k.all, list.Position())
		} else {
			k.selecting = append(k.selecting, list)
		}
	}
	// What lists say that may not be read any more is no answer, but it was said.
	k.States = slices.DeleteFunc(k.States, func(s store.ObjectState) bool { return k.refused(s.Collection) })
	k.Lists = slices.DeleteFunc(k.Lists, k.refused)
	return k
}

func (k *knowledge) refused(c *store.Collection) bool {
	return c.State == store.Complete && slices.ContainsFunc(k.scopes, func(o store.Observation) bool {
		return o.Says == store.Refused && c.Doubted(o, k.namespace)
	})
}

// holds reports whether evidence is true as far as all is known. It is from a collection, or nil.
func (k *knowledge) holds(e store.Evidence, from *store.Collection) bool {
	if i := e.Contradiction(k.all); i >= 0 {
		k.all[0], k.all[i] = k.all[i], k.all[0] // it likely contradicts the next one, too
		return false
	}
	return !slices.ContainsFunc(k.scopes, func(o store.Observation) bool {
		if o.Says == store.Refused || from != nil && from.State == store.Complete && !from.Doubted(o, k.namespace) {
			return false
		}
		return !e.Newer(o.Evidence) && (e.Asked != o.Asked || e.Told != o.Told)
	})
}

// current reports whether a recorded state of the object holds. A list that selects by labels, and
// lacks the object, contradicts the states with such labels.
func (k *knowledge) current(s *store.ObjectState) (bool, error) {
	e := s.Evidence()
	if len(k.selecting) == 0 {
		return k.holds(e, s.Collection), nil
	}
	set, err := parseLabels(s.Object.Labels)
	if err != nil {
		return false, err
	}
	for _, list := range k.selecting {
		if e.Newer(list.Position()) {
			continue
		}
		if selector, err := k.selectors.parse(list.LabelSelector); err != nil || selector.Matches(set) {
			return false, err
		}
	}
	return k.holds(e, s.Collection), nil
}

// absent reports whether it holds that there is no such object, and up to which version that is
// known; empty: unknown.
func (k *knowledge) absent() (version string, ok bool) {
	consider := func(e store.Evidence, from *store.Collection) {
		if e.Says != store.Gone || !k.holds(e, from) {
			return
		}
		if !ok || version == "" || store.NewerVersion(e.Version, version) {
			version = e.Version
		}
		ok = true
	}
	for _, list := range k.Lists {
		if list.LabelSelector == "" {
			consider(list.Position(), list)
		}
	}
	for _, o := range k.Observations {
		if o.Name != "" {
			consider(o.Evidence, nil)
		}
	}
	return version, ok
}
