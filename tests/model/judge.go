package model

import (
	"fmt"
	"slices"
)

// shown is an object in a form.
func shown(o object, f form) object {
	if f.isMetadata() {
		return o.metadata()
	}
	return o
}

func (w *world) judgeObject(p *program, a ask, got outcome) (rule, string) {
	if len(got.objects) != 1 {
		return invented, fmt.Sprintf("%d objects", len(got.objects))
	}
	from := floor(p.told[a.key], got.objects[0])
	had := -1
	for i, r := range w.server.revisions {
		if o, ok := r.objects[a.key]; ok && shown(o, got.form) == got.objects[0] {
			had = i
		}
	}
	switch {
	case had < 0:
		return invented, "it never was this"
	case had < from:
		return stepBack, w.since(a.key, had, from)
	case a.version != "" && had < w.server.now():
		return tooOld, "that has changed since"
	}
	return "", ""
}

// since says what the program was told after a revision.
func (w *world) since(k key, had, from int) string {
	now := "absent"
	if o, ok := w.server.revisions[from].objects[k]; ok {
		now = o.String()
	}
	return fmt.Sprintf("that was until revision %d, and the program was told about %s at revision %d, where it is %s", had, k, from, now)
}

func (w *world) judgeAbsence(p *program, a ask) (rule, string) {
	if !p.ever[a.key] {
		return false404, "the program was never told anything about it"
	}
	from := floor(p.told[a.key], object{})
	had := -1
	for i, r := range w.server.revisions {
		if _, ok := r.objects[a.key]; !ok {
			had = i
		}
	}
	switch {
	case had < from:
		return false404, w.since(a.key, had, from)
	case a.version != "" && had < w.server.now():
		return tooOld, "that has changed since"
	}
	return "", ""
}

func (w *world) judgeNoResource(p *program, a ask) (rule, string) {
	for _, r := range p.refusals {
		if r.scope.kind == a.scope.kind && slices.ContainsFunc(w.server.revisions[r.at:], func(r revision) bool { return r.unserved[a.scope.kind] }) {
			return "", ""
		}
	}
	return false404, "the program was never told that the resource is not served"
}

// judgeList judges a list, or the state that a watch begins with. It is right if one revision of
// its version has just these objects, and none of them has changed since in a way that the program
// was told of.
func (w *world) judgeList(p *program, a ask, got outcome) (broken rule, why string) {
	broken, why = invented, "no revision of this version has just these objects"
	for i, r := range w.server.revisions {
		if r.version != got.version || r.unserved[a.scope.kind] || !w.equal(i, a.scope, got) {
			continue
		}
		if broken, why = w.judgeRevision(p, a, got.form, i); why == "" {
			break
		}
	}
	return broken, why
}

// equal reports whether a scope shows just these objects at a revision.
func (w *world) equal(at int, s scope, got outcome) bool {
	want := w.server.list(at, s)
	for i := range want {
		want[i] = shown(want[i], got.form)
	}
	return slices.Equal(want, got.objects)
}

// judgeRevision reports why a list at a revision may not be answered in a form.
func (w *world) judgeRevision(p *program, a ask, form form, at int) (rule, string) {
	for _, k := range universe {
		if !a.scope.has(k) {
			continue
		}
		told := p.told[k]
		if form == asTable || a.scope.selector == byShard {
			told = beyond(told, w.server.revisions[at].version)
		}
		if a.scope.selector == byLabel {
			told = labelled(told, w.server.revisions[at].version)
		}
		from := floor(told, w.server.revisions[at].objects[k])
		last := at
		for i := at; i <= w.server.now(); i++ {
			if w.server.view(i, a.scope, k) == w.server.view(at, a.scope, k) {
				last = i
			}
		}
		if last < from {
			return stepBack, w.since(k, last, from)
		}
	}
	for _, r := range p.refusals {
		sameScope := r.scope.kind == a.scope.kind && (a.scope.namespace == "" || a.scope.namespace == r.scope.namespace)
		if sameScope && (r.verb == watch || a.verb == list) && !p.listedAfter(r) && !w.allowedSince(p, a, at, r.at) {
			return refused, fmt.Sprintf("the server refused it at revision %d", r.at)
		}
	}
	return "", ""
}

// informs reports whether the first watch of a program follows what is asked. A watch that is silent
// has told nothing: the program knows what its list has shown, in the form of that.
func (p *program) informs(a ask) bool {
	s := p.streams[0]
	if s == nil || !s.spoken && (s.ask.start == fromState || s.from >= asTable || s.from.isMetadata() && !a.form.isMetadata()) || a.form == asTable || a.version != "" || a.scope.selector == byShard || s.ask.form.isMetadata() && !a.form.isMetadata() {
		return false
	}
	asked := a.scope
	if a.verb == get {
		asked = scope{kind: a.key.kind, namespace: a.key.namespace}
	}
	return s.ask.scope.includes(asked)
}

// listedAfter reports whether a list of a refused scope succeeded that was sent later.
func (p *program) listedAfter(r listing) bool {
	return slices.ContainsFunc(p.listings, func(l listing) bool {
		return l.sent > r.sent && l.scope.kind == r.scope.kind && (l.scope.namespace == "" || l.scope.namespace == r.scope.namespace)
	})
}

// allowedSince reports whether the server would have given the list of a revision at another one
// that is not before from.
func (w *world) allowedSince(p *program, a ask, at, from int) bool {
	objects := w.server.list(at, a.scope)
	for i := from; i <= w.server.now(); i++ {
		r := w.server.revisions[i]
		if !r.unserved[a.scope.kind] && !r.refuses(p.principal, a) && slices.Equal(w.server.list(i, a.scope), objects) {
			return true
		}
	}
	return false
}
