package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// form is the form of objects in an answer: the encoding, and whether they have only metadata.
type form struct{ protobuf, metadata bool }

// variant is a set of Accept headers.
type variant struct {
	list, get string // the Accept headers of lists and of other requests
	forms     []form // best first
	table     bool   // prefers a Table
}

// table is the form that kubectl prefers.
const table = "application/json;as=Table;v=v1;g=meta.k8s.io"

var variants = []variant{
	{acceptJSON, acceptJSON, []form{{}}, false},
	{"", "", []form{{}}, false},
	{"*/*", "*/*", []form{{}}, false},
	{acceptProtobuf, acceptProtobuf, []form{{protobuf: true}}, false},
	{acceptBoth, acceptBoth, []form{{protobuf: true}, {}}, false}, // client-go
	{"application/json;q=0.5," + acceptProtobuf, "application/json;q=0.5," + acceptProtobuf, []form{{protobuf: true}, {}}, false},
	{acceptMetadataList, acceptMetadata, []form{{metadata: true}}, false},
	{protobufMetadataAll, protobufMetadata, []form{{true, true}}, false},
	{protobufMetadataAll + "," + acceptMetadataList + ",application/json", protobufMetadata + "," + acceptMetadata + ",application/json", // client-go's metadata client
		[]form{{true, true}, {metadata: true}}, false},
	{table + ",application/json", table + ",application/json", []form{{}}, true}, // kubectl
}

// ask is a random LIST, GET or WATCH.
type ask struct {
	getRequest
	verb                      string
	kind                      kind
	namespace, labels, fields string
	name                      string
	variant                   variant
	version, match            string // resourceVersion and resourceVersionMatch
	limit                     int
	initial                   bool // sendInitialEvents
}

// dataset has the objects and parameters for random requests.
type dataset struct {
	random     *rand.Rand
	kinds      []kind
	namespaces []string
	names      map[string][]string // of objects, as NAMESPACE/NAME, by resource
	base       string              // a resourceVersion greater than those of all objects
}

func pick[T any](random *rand.Rand, of ...T) T { return of[random.IntN(len(of))] }

// draw returns a random request, which depends only on the random numbers.
func (f *dataset) draw() ask {
	r := f.random
	k := pick(r, f.kinds...)
	a := ask{kind: k, variant: pick(r, variants...), verb: pick(r, "list", "list", "list", "get", "watch")}
	if k.namespaced {
		a.namespace = pick(r, append(slices.Clone(f.namespaces), "", "", "nowhere")...)
	}
	if a.verb == "get" {
		key := pick(r, append(slices.Clone(f.names[k.Resource]), f.namespaces[0]+"/nope")...)
		a.namespace, a.name, _ = strings.Cut(key, "/")
		if !k.namespaced {
			a.namespace = ""
		}
		a.version = pick(r, "", "", "0")
		return a.built()
	}
	if r.IntN(5) < 2 {
		a.labels = f.labels()
	}
	if r.IntN(5) < 2 {
		a.fields = f.fields(k)
	}
	if a.verb == "watch" {
		a.variant = pick(r, slices.DeleteFunc(slices.Clone(variants), func(v variant) bool { return v.table })...)
		a.version = pick(r, "", "0", f.base)
		a.initial = r.IntN(3) > 0
		return a.built()
	}
	switch r.IntN(10) {
	case 0, 1:
		a.version = "0"
	case 2:
		a.version, a.match = f.base, "NotOlderThan"
	case 3:
		a.version, a.match = f.base, "Exact"
	}
	if r.IntN(4) == 0 && a.version != "0" && a.match != "NotOlderThan" {
		a.limit = 4 + r.IntN(9)
	}
	return a.built()
}

// built returns the request with its target and Accept header.
func (a ask) built() ask {
	query := url.Values{}
	set := func(name, value string) {
		if value != "" {
			query.Set(name, value)
		}
	}
	set("labelSelector", a.labels)
	set("fieldSelector", a.fields)
	set("resourceVersion", a.version)
	set("resourceVersionMatch", a.match)
	if a.limit > 0 {
		query.Set("limit", strconv.Itoa(a.limit))
	}
	if a.verb == "watch" {
		query.Set("watch", "true")
		query.Set("timeoutSeconds", "2")
	}
	if a.initial {
		query.Set("sendInitialEvents", "true")
		query.Set("resourceVersionMatch", "NotOlderThan")
		query.Set("allowWatchBookmarks", "true")
	}
	a.Accept, a.Target = a.variant.list, a.kind.pathIn(a.namespace)
	switch a.verb {
	case "get":
		a.Accept, a.Target = a.variant.get, a.Target+"/"+a.name
	case "watch":
		a.Accept = a.variant.get // each event has one object
	}
	if len(query) > 0 {
		a.Target += "?" + query.Encode()
	}
	return a
}

// needsState reports whether the answer begins with existing objects: not for a watch from a
// version on.
func (a ask) needsState() bool {
	return a.verb != "watch" || a.initial || a.version == "" || a.version == "0"
}

// page is the request for the next page.
func (a ask) page(token string) getRequest {
	u := url.Values{"continue": {token}, "limit": {strconv.Itoa(max(a.limit, 1))}}
	if a.labels != "" {
		u.Set("labelSelector", a.labels)
	}
	if a.fields != "" {
		u.Set("fieldSelector", a.fields)
	}
	return getRequest{Target: a.kind.pathIn(a.namespace) + "?" + u.Encode(), Accept: a.Accept}
}

func (a ask) String() string { return fmt.Sprintf("%s %s as %q", a.verb, a.Target, a.Accept) }

// labels is a random label selector.
func (f *dataset) labels() string {
	var all []string
	for range 1 + f.random.IntN(2) {
		all = append(all, pick(f.random, "app=a", "app==b", "app!=a", "app in (a,b)", "app notin (a,c)", "app", "!tier", "tier=", "tier in (front,)",
			"example.com/zone=x", "!example.com/zone", "app=nothing"))
	}
	return strings.Join(all, ",")
}

// selectable are field selectors by resource. The value of the first is one that no object has, the
// others have values of some objects.
var selectable = map[string][]string{
	"pods": {"spec.nodeName=edge-9", "spec.nodeName=edge-0", "spec.nodeName!=edge-0", "spec.nodeName=", "status.phase=Running", "status.phase!=Running", "status.phase=Pending",
		"spec.restartPolicy=Always", "spec.schedulerName=default-scheduler", "spec.serviceAccountName=default", "status.podIP=", "spec.hostNetwork=false"},
	"events": {"involvedObject.name=nothing", "involvedObject.name=pod-1", "involvedObject.kind=Pod", "involvedObject.kind!=Pod", "involvedObject.namespace=NAMESPACE",
		"involvedObject.uid=u-2", "involvedObject.apiVersion=v1", "involvedObject.resourceVersion=", "involvedObject.fieldPath=spec", "reason=Pulled", "reason!=Pulled", "type=Warning", "source=kubelet", "reportingComponent="},
	"secrets":    {"type=example.com/none", "type=example.com/a", "type!=example.com/a"},
	"nodes":      {"spec.unschedulable=true", "spec.unschedulable=false"},
	"configmaps": {"data.value=nothing"}, // the server refuses it
}

// fields is a random field selector.
func (f *dataset) fields(k kind) string {
	var all []string
	for range 1 + f.random.IntN(2) {
		key := pick(f.random, append(slices.Clone(f.names[k.Resource]), "/nope")...)
		namespace, name, _ := strings.Cut(key, "/")
		choices := []string{"metadata.name=" + name, "metadata.name!=" + name}
		if k.namespaced {
			choices = append(choices, "metadata.namespace="+namespace, "metadata.namespace!="+f.namespaces[0])
		}
		if own := selectable[k.Resource]; len(own) > 0 && f.random.IntN(3) > 0 {
			choices = own
		}
		all = append(all, strings.ReplaceAll(pick(f.random, choices...), "NAMESPACE", f.namespaces[0]))
	}
	return strings.Join(all, ",")
}
