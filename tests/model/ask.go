package model

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// ask is a request of a program.
type ask struct {
	verb   verb
	key    key    // of verbs for one object
	scope  scope  // of verbs for many
	sub    string // subresource of a put
	form   form
	any    bool // resourceVersion=0: any state that the server has at hand
	limit  int  // of a list; 0: none
	start  start
	legacy bool // a watch by the deprecated path
	beta   bool // of Deployments in another API version, in JSON
	// version is a resourceVersion that the answer must not be older than. Empty: none.
	version string
	// next and offset name a further page, of the list at revision page.
	next         string
	page, offset int
}

type verb int

const (
	get verb = iota
	list
	watch
	post
	put
	patch
	remove
	removeMany
)

// start is where a watch begins.
type start int

const (
	fromList  start = iota // at the version of the principal's last list
	fromState              // with the present state, whose end nothing marks
	watchList              // with the present state, whose end a bookmark marks
	startCount
)

func (a *ask) method() string {
	return [...]string{"GET", "GET", "GET", "POST", "PUT", "PATCH", "DELETE", "DELETE"}[a.verb]
}

func (a *ask) many() bool { return a.verb == list || a.verb == watch || a.verb == removeMany }

// kind is the resource of a request.
func (a *ask) kind() *kind {
	if a.many() {
		return a.scope.kind
	}
	return a.key.kind
}

// url is the path and query.
func (a *ask) url() string {
	k := a.kind()
	path := "/api/" + k.version
	if k.group != "" {
		path = "/apis/" + k.group + "/" + k.version
	}
	if a.beta {
		path += "beta1"
	}
	if a.legacy {
		path += "/watch"
	}
	namespace := a.key.namespace
	if a.many() {
		namespace = a.scope.namespace
	}
	if namespace != "" {
		path += "/namespaces/" + namespace
	}
	path += "/" + k.resource
	if !a.many() && a.verb != post {
		path += "/" + a.key.name
	}
	if a.sub != "" {
		path += "/" + a.sub
	}
	var query []string
	add := func(on bool, parameter string) {
		if on {
			query = append(query, parameter)
		}
	}
	if a.many() {
		add(a.scope.selector != everything, a.scope.query())
	}
	add(a.verb == watch && !a.legacy, "watch=true")
	add(a.verb == watch && a.form != asTable, "allowWatchBookmarks=true")
	add(a.verb == watch && a.start == watchList, "sendInitialEvents=true&resourceVersionMatch=NotOlderThan")
	add(a.any, "resourceVersion=0")
	add(a.version != "", "resourceVersion="+a.version)
	add(a.limit > 0, fmt.Sprintf("limit=%d", a.limit))
	add(a.next != "", "continue="+a.next)
	if len(query) == 0 {
		return path
	}
	return path + "?" + strings.Join(query, "&")
}

func (a *ask) String() string {
	out := a.method() + " " + a.url()
	if a.verb == watch && a.start == fromList {
		out += ", from the version of the last list"
	}
	if a.form != inJSON {
		out += ", in " + a.form.String()
	}
	return out
}

// http makes the request.
func (a *ask) http() *http.Request {
	r, err := http.NewRequest(a.method(), a.url(), http.NoBody)
	if err != nil {
		panic(err) // the parts are constants
	}
	r.Header.Set("Accept", a.form.accept(a.many() && a.verb != watch))
	return r
}

// reply is the server's answer to a request, and what it tells.
type reply struct {
	status int
	body   []byte
	told   map[key]observation
	// at is the revision of a list, or of the state that a watch begins with.
	at int
	// next and offset name the next page of a list; empty: there is none.
	next   string
	offset int
}

// answer answers a request at a revision, or at the latest one if that is asked for or changed.
func (s *server) answer(principal string, a ask, at int) reply {
	r := s.reply(principal, a, at)
	if a.beta {
		r.body = bytes.ReplaceAll(r.body, []byte(`"apps/v1"`), []byte(`"apps/v1beta1"`))
	}
	return r
}

func (s *server) reply(principal string, a ask, at int) reply {
	r := reply{status: http.StatusOK, at: at, told: map[key]observation{}}
	state := s.revisions[at]
	if a.verb > watch || !a.any {
		state, r.at = *s.latest(), s.now()
	}
	switch {
	case s.latest().refuses(principal, a):
		return s.refuse(r, a, http.StatusForbidden, metav1.StatusReasonForbidden)
	case s.latest().unserved[a.kind()]:
		if !a.many() && a.verb != post {
			r.told[a.key] = observation{at: s.now(), missing: true}
		}
		return s.refuse(r, a, http.StatusNotFound, metav1.StatusReasonNotFound)
	}
	switch a.verb {
	case list:
		if a.next != "" && a.page < s.restored {
			return s.refuse(r, a, http.StatusGone, metav1.StatusReasonExpired)
		}
		return s.answerList(r, a)
	case watch:
		return r
	case removeMany:
		gone := s.list(r.at, a.scope)
		for _, o := range gone {
			s.remove(o.key)
		}
		r.body = encodeList(a.kind(), a.form, metav1.ListMeta{ResourceVersion: s.latest().version}, gone)
		return r
	}
	o, ok := state.objects[a.key]
	switch {
	case a.verb == post && ok:
		r.told[a.key] = observation{at: r.at, uid: o.uid, exists: true}
		return s.refuse(r, a, http.StatusConflict, metav1.StatusReasonAlreadyExists)
	case a.verb != post && !ok:
		r.told[a.key] = observation{at: r.at, lag: a.any, missing: true}
		return s.refuse(r, a, http.StatusNotFound, metav1.StatusReasonNotFound)
	}
	return s.answerOne(r, a, o)
}

// answerOne answers a request for one object, which exists unless it is created.
func (s *server) answerOne(r reply, a ask, o object) reply {
	gone := false
	switch a.verb {
	case post:
		r.status, o = http.StatusCreated, s.create(a.key, tiers[0])
	case put:
		switch a.sub {
		case "status":
			o.status++
		default:
			o.value++
		}
		o = s.put(o)
	case patch:
		switch {
		case o.terminating && o.kind != namespaces: // takes the finalizer away
			o, gone = s.release(o), true
		case o.label == tiers[0]:
			o.label = tiers[1]
			o = s.put(o)
		default:
			o.label = tiers[0]
			o = s.put(o)
		}
	case remove:
		var terminating bool
		o, terminating = s.remove(o.key)
		gone = !terminating
	}
	if a.verb != get {
		r.at = s.now()
	}
	told := observation{at: r.at, version: o.version, uid: o.uid, gone: gone, lag: a.any}
	if gone || a.form.opaque() {
		told.version = ""
	}
	if a.form.opaque() {
		told.uid, told.gone = "", false
	}
	r.told[a.key] = told
	switch {
	case gone && a.verb == remove:
		r.body = encodeStatus(a.form, &metav1.Status{Status: metav1.StatusSuccess, Details: &metav1.StatusDetails{
			Name: o.name, Group: o.kind.group, Kind: o.kind.resource, UID: types.UID(o.uid),
		}})
	case a.sub == "scale":
		r.body = encode(a.form, autoscalingv1.SchemeGroupVersion.WithKind("Scale"), &autoscalingv1.Scale{
			ObjectMeta: metav1.ObjectMeta{Name: o.name, Namespace: o.namespace, UID: types.UID(o.uid), ResourceVersion: o.version},
			Spec:       autoscalingv1.ScaleSpec{Replicas: int32(o.value)},
		})
	default:
		r.body = o.encode(a.form)
	}
	return r
}

// answerList answers a page of a list.
func (s *server) answerList(r reply, a ask) reply {
	if a.next != "" {
		r.at = a.page
	}
	version := s.revisions[r.at].version
	told := observation{at: r.at, version: version, lag: a.any}
	if a.form.opaque() {
		told.version = ""
	}
	told.whole = a.form == asTable || a.scope.selector == byShard
	all := s.list(r.at, a.scope)
	shown := map[key]bool{}
	for _, o := range all {
		shown[o.key] = true
	}
	m := metav1.ListMeta{ResourceVersion: version}
	part := all[min(a.offset, len(all)):]
	if a.limit > 0 && len(part) > a.limit && !a.any {
		part = part[:a.limit]
		r.offset = a.offset + a.limit
		r.next = fmt.Sprintf("%s.%d", version, r.offset)
		if a.scope.selector == everything {
			rest := int64(len(all) - r.offset)
			m.RemainingItemCount = &rest
		}
	}
	m.Continue = r.next
	for _, o := range part {
		told.uid, told.changed = o.uid, o.version
		r.told[o.key] = told
	}
	// What is left out for a parameter that the sidecar does not know may be there.
	if told.uid, told.changed, told.unselected = "", "", a.scope.selector == byLabel; r.next == "" && a.scope.selector != byShard {
		for _, k := range universe {
			if a.scope.has(k) && !shown[k] {
				r.told[k] = told
			}
		}
	}
	r.body = encodeList(a.kind(), a.form, m, part)
	return r
}

// refuse makes the Status of an error. Only the 404 for an object names it.
func (s *server) refuse(r reply, a ask, status int, reason metav1.StatusReason) reply {
	r.status = status
	body := &metav1.Status{Status: metav1.StatusFailure, Code: int32(status), Reason: reason}
	if !a.many() && !s.latest().unserved[a.kind()] {
		body.Details = &metav1.StatusDetails{Name: a.key.name, Group: a.key.kind.group, Kind: a.key.kind.resource}
	}
	form := a.form
	if form == asTable {
		form = inJSON
	}
	r.body = encodeStatus(form, body)
	return r
}

// universe has all objects that there can be.
var universe = func() (out []key) {
	for _, k := range kinds {
		for _, namespace := range []string{"app", "ops"} {
			for _, name := range []string{"a", "b", "c"} {
				if k.namespaced {
					out = append(out, key{k, namespace, name})
				} else if namespace == "app" {
					out = append(out, key{k, "", name})
				}
			}
		}
	}
	return out
}()
