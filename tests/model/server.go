package model

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// revision is one state of the server.
type revision struct {
	version  string
	objects  map[key]object
	denied   map[access]bool
	unserved map[*kind]bool
	changed  key // the object that it has changed; zero: none
}

// access is that of a principal to a resource.
type access struct {
	principal string
	kind      *kind
	list      bool // only to its lists
}

// server is the reference model of an API server: the history of its states. A revision is an
// index into it. After a restore the versions repeat, but the revisions do not.
type server struct {
	revisions []revision
	opaque    bool // its versions are no numbers
	padding   int  // bytes of each object
	number    int  // of the last version
	numbers   []int
	uids      int
	restored  int // the revision of the last restore; 0: none
	fresh     int // the oldest revision that a watch cache can have: it began there
}

func newServer(opaque bool, padding int) *server {
	s := &server{opaque: opaque, padding: padding, number: 9, revisions: []revision{{
		objects: map[key]object{}, denied: map[access]bool{}, unserved: map[*kind]bool{},
	}}}
	s.revisions[0].version, s.numbers = s.versionOf(s.number), []int{s.number}
	return s
}

func (s *server) now() int                 { return len(s.revisions) - 1 }
func (s *server) latest() *revision        { return &s.revisions[s.now()] }
func (s *server) get(k key) (object, bool) { o, ok := s.latest().objects[k]; return o, ok }

// versionOf makes a version of a number. Opaque versions begin with digits that mean nothing.
func (s *server) versionOf(n int) string {
	if s.opaque {
		return fmt.Sprintf("%d-%x", n*7%10, n*7919)
	}
	return fmt.Sprint(n)
}

// step adds a revision, which change makes of a copy of the latest one.
func (s *server) step(changed key, change func(r *revision)) {
	last := s.latest()
	s.number++
	r := revision{
		version: s.versionOf(s.number), changed: changed,
		objects: maps.Clone(last.objects), denied: maps.Clone(last.denied), unserved: maps.Clone(last.unserved),
	}
	change(&r)
	s.revisions, s.numbers = append(s.revisions, r), append(s.numbers, s.number)
}

// put writes an object and gives it as it is then.
func (s *server) put(o object) object {
	s.step(o.key, func(r *revision) {
		o.version, o.padding = r.version, s.padding
		r.objects[o.key] = o
	})
	return o
}

func (s *server) create(k key, label string) object {
	s.uids++
	return s.put(object{key: k, uid: fmt.Sprintf("u%d", s.uids), label: label, value: s.uids, held: k.kind == namespaces})
}

// remove deletes an object, or makes it terminating if something holds it.
func (s *server) remove(k key) (o object, terminating bool) {
	o = s.latest().objects[k]
	if o.held {
		if !o.terminating {
			o.terminating = true
			o = s.put(o)
		}
		return o, true
	}
	s.step(k, func(r *revision) { delete(r.objects, k) })
	return o, false
}

// release takes the finalizer away, which ends a terminating object.
func (s *server) release(o object) object {
	o.held = false
	if o.terminating {
		s.step(o.key, func(r *revision) { delete(r.objects, o.key) })
		return o
	}
	return s.put(o)
}

// change is what somebody else does to an object; n chooses what.
func (s *server) change(k key, n int) {
	o, ok := s.get(k)
	switch {
	case s.latest().unserved[k.kind]:
	case !ok:
		s.create(k, tiers[n%len(tiers)])
	case o.terminating || n%8 == 7 && o.held:
		s.release(o)
	case n%8 < 3:
		o.value++
		s.put(o)
	case n%8 == 3:
		o.label = tiers[n/8%len(tiers)]
		s.put(o)
	case n%8 == 4 && k.kind != namespaces:
		o.held = true
		s.put(o)
	default:
		s.remove(k)
	}
}

// tiers are the values of the label "tier".
var tiers = []string{"front", "back"}

// serve stops or resumes to serve a resource. With its definition all objects go.
func (s *server) serve(k *kind, on bool) {
	if on == !s.latest().unserved[k] {
		return
	}
	for _, at := range s.keys(s.now(), scope{kind: k}) {
		s.step(at, func(r *revision) { delete(r.objects, at) })
	}
	s.step(key{}, func(r *revision) { r.unserved[k] = !on })
	s.fresh = s.now()
}

func (s *server) allow(a access, on bool) {
	s.step(key{}, func(r *revision) { r.denied[a] = !on })
}

// refuses reports whether the server refuses a request at a revision.
func (r *revision) refuses(principal string, a ask) bool {
	return r.denied[access{principal, a.kind(), false}] || a.verb == list && r.denied[access{principal, a.kind(), true}]
}

// restore brings the state back that was a number of revisions ago. Versions go on from there.
func (s *server) restore(back int) {
	to := max(s.now()-back, 0)
	r := s.revisions[to]
	r.changed = key{}
	s.number = s.numbers[to]
	s.revisions, s.numbers = append(s.revisions, r), append(s.numbers, s.number)
	s.restored, s.fresh = s.now(), s.now()
}

// lagging is the revision of a watch cache that is behind.
func (s *server) lagging(by int) int {
	if s.opaque { // aggregated API servers have no watch cache
		return s.now()
	}
	return max(s.now()-by, s.fresh)
}

// scope is a part of the objects of a resource.
type scope struct {
	kind      *kind
	namespace string // empty: all
	selector  selector
	name      string // of selector byName
}

type selector int

const (
	everything selector = iota
	byLabel             // labelSelector=tier=front
	byName              // fieldSelector=metadata.name=…
	byShard             // a parameter that the sidecar does not know, which narrows too
	selectorCount
)

// has reports whether an object can be in the scope.
func (s scope) has(k key) bool {
	return k.kind == s.kind && (s.namespace == "" || s.namespace == k.namespace) &&
		(s.selector != byName || s.name == k.name) && (s.selector != byShard || k.name == "a")
}

// shows reports whether an object is in the scope.
func (s scope) shows(o object) bool {
	return s.has(o.key) && (s.selector != byLabel || o.label == "front")
}

// includes reports whether another scope is a part of this one, whatever objects there are.
func (s scope) includes(other scope) bool {
	return s.kind == other.kind && s.selector == everything && (s.namespace == "" || s.namespace == other.namespace)
}

// query is the part of a URL's query that selects.
func (s scope) query() string {
	return [...]string{"", "labelSelector=tier%3Dfront", "fieldSelector=metadata.name%3D" + s.name, "shardSelector=a"}[s.selector]
}

// keys are the objects that a scope shows at a revision, in the order of a list.
func (s *server) keys(at int, in scope) (out []key) {
	for k, o := range s.revisions[at].objects {
		if in.shows(o) {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b key) int {
		return strings.Compare(a.namespace+"/"+a.name, b.namespace+"/"+b.name)
	})
	return out
}

// list is what a scope shows at a revision.
func (s *server) list(at int, in scope) (out []object) {
	for _, k := range s.keys(at, in) {
		out = append(out, s.revisions[at].objects[k])
	}
	return out
}

// view is what a scope shows of an object at a revision; zero: nothing.
func (s *server) view(at int, in scope, k key) object {
	if o, ok := s.revisions[at].objects[k]; ok && in.shows(o) {
		return o
	}
	return object{}
}
