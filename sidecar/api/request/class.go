package request

import (
	"net/http"
	"strings"
)

// Class says what a request is to Rockpool. It decides who answers the request, and how the
// answer is recorded. Parse sets it; nothing else derives it again from verb and path.
type Class int

// The classes.
const (
	// ClassOpaque is for the API server alone: log, exec, token requests, unknown paths, and
	// parameters that nobody but the API server can complain about.
	ClassOpaque Class = iota
	// ClassDiscovery reads a document by which the API describes itself.
	ClassDiscovery
	// ClassVerbatim reads a scale or status, or with a parameter that may narrow the answer. Only
	// the identical request gets that answer again.
	ClassVerbatim
	// ClassGet reads one object.
	ClassGet
	// ClassList reads a collection.
	ClassList
	// ClassWatch follows a collection, in a form that can be cut into events.
	ClassWatch
	// ClassWrite creates, changes or deletes one object. Its answer has the object.
	ClassWrite
	// ClassIndirect changes an object without showing it: its scale, an eviction, a binding. A
	// write of a subresource that nobody here knows may do that, too.
	ClassIndirect
	// ClassDeleteMany deletes a collection.
	ClassDeleteMany
	// ClassReview is a POST that only asks.
	ClassReview
)

// classify finds the class of a request whose other fields are set.
func (i *Info) classify() Class {
	switch {
	case i.Invalid || i.Legacy:
		return ClassOpaque
	case i.IsDocument():
		return ClassDiscovery
	case !i.IsResource:
		return ClassOpaque
	case i.IsReview():
		return ClassReview
	}
	switch i.Verb {
	case Get, List, Watch:
		return i.classifyRead()
	case DeleteCollection:
		return ClassDeleteMany
	case Create, Update, Patch, Delete:
		return i.classifyWrite()
	}
	return ClassOpaque
}

func (i *Info) classifyRead() Class {
	switch i.Subresource {
	case "":
	case "scale", "status": // an object of a kind of its own, or a second way to one
		if i.Verb == Get {
			return ClassVerbatim
		}
		return ClassOpaque
	default: // log, exec, attach, portforward, proxy: streams; others are unknown
		return ClassOpaque
	}
	switch {
	case i.Verb == Watch && (i.Head || len(i.Forms()) == 0):
		return ClassOpaque
	case i.Verb == Watch:
		return ClassWatch
	case i.Narrowed:
		return ClassVerbatim
	case i.Verb == Get:
		return ClassGet
	}
	return ClassList
}

// IsWatch reports whether the request is for a stream of events, also in a form that cannot be cut.
func (i *Info) IsWatch() bool { return i.IsResource && i.Verb == Watch && !i.Legacy }

func (i *Info) classifyWrite() Class {
	subresource, _, _ := strings.Cut(i.Subresource, "/")
	switch subresource {
	case "", "status", "approval", "ephemeralcontainers", "finalize", "resize": // the answer is the object
		return ClassWrite
	case "attach", "exec", "portforward", "proxy": // streams to a container, or to a server
		return ClassOpaque
	case "token": // the answer is a token
		return ClassOpaque
	}
	return ClassIndirect
}

// unrecorded tells whether the answer to a request says nothing about the present state of
// the API, does not show it, or says it to somebody else.
func (i *Info) unrecorded() bool {
	old := i.ResourceVersionMatch == "Exact" && (i.Class == ClassGet || i.Class == ClassList)
	return i.Impersonated || i.Head || old || (i.DryRun && !i.IsRead())
}

// SetDryRun notes whether the body of a write says that nothing shall be changed.
func (i *Info) SetDryRun(dryRun bool) {
	i.DryRun = dryRun
	i.Unrecorded = i.unrecorded()
}

// Tells reports whether an answer with a status says something about the present state of the API.
// What the API server says of the objects when it refuses a write is true although the write was
// only tried.
func (i *Info) Tells(status int) bool {
	if !i.Unrecorded {
		return true
	}
	tried := i.DryRun && !i.IsRead() && !i.Impersonated && !i.Head
	return tried && (status == http.StatusNotFound || status == http.StatusConflict)
}
