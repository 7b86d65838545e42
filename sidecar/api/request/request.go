// Package request says what an HTTP request asks of the Kubernetes API: verb,
// resource, scope and the forms of answer it accepts. It is a pure reading of
// method, URL and headers, it decides nothing and does no I/O.
//
// The verbs and path rules are those of the API server, see
// https://kubernetes.io/docs/reference/using-api/api-concepts/.
package request

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
)

// Verbs of requests for resources. For other paths the verb is the method in
// lower case, as in RBAC's nonResourceURLs.
const (
	Get              = "get"
	List             = "list"
	Watch            = "watch"
	Create           = "create"
	Update           = "update"
	Patch            = "patch"
	Delete           = "delete"
	DeleteCollection = "deletecollection"
)

// Info is what a request asks for.
type Info struct {
	Verb string
	// Path is the URL's path.
	Path string
	// IsResource tells that the path names an API resource; the fields of the
	// next group are empty otherwise.
	IsResource bool

	Group, Version, Resource string
	Namespace                string // empty: cluster-scoped, or all namespaces
	Name, Subresource        string

	Options
	// Accept lists the forms of answer that the client takes, best first.
	Accept []MediaType
	// RawAccept is the Accept header as it came.
	RawAccept string
	// Impersonated tells that the request asks to act as somebody else.
	Impersonated bool
	// Legacy marks the deprecated /watch/ and /proxy/ path prefixes.
	Legacy bool

	// Class is what the request is to Rockpool.
	Class Class
	// Unrecorded tells that the answer is not recorded: the request acts as somebody else,
	// is only tried, or asks for an old state.
	Unrecorded bool
}

// Options are the query parameters of reads, metav1.ListOptions.
type Options struct {
	LabelSelector, FieldSelector string // canonical: parsed and sorted
	ResourceVersion              string
	ResourceVersionMatch         string
	Continue                     string
	Limit                        int64
	SendInitialEvents            bool
	AllowWatchBookmarks          bool
	Timeout                      time.Duration // timeoutSeconds; 0: none was asked for
	// DryRun tells that a write is only tried.
	DryRun bool
	// Invalid tells that a parameter cannot be read as its type. Only the
	// API server knows the right complaint, so such requests are for it alone.
	Invalid bool
}

// Parse reads a request. It never fails: what it does not understand is a
// request for a path that is no resource.
func Parse(r *http.Request) Info {
	info := Info{
		Verb:      strings.ToLower(r.Method),
		Path:      r.URL.Path,
		RawAccept: strings.Join(r.Header.Values("Accept"), ","),
	}
	info.Accept = ParseAccept(info.RawAccept)
	for name := range r.Header {
		if strings.HasPrefix(name, "Impersonate-") {
			info.Impersonated = true
		}
	}
	query := r.URL.Query()
	info.Options = parseOptions(query)
	info.parsePath()
	if info.IsResource {
		info.Verb = info.verb(r.Method, query)
	}
	info.Class = info.classify()
	info.Unrecorded = info.unrecorded()
	return info
}

// parsePath reads /api/VERSION/… and /apis/GROUP/VERSION/….
func (i *Info) parsePath() {
	parts := strings.Split(strings.Trim(i.Path, "/"), "/")
	var rest []string
	switch {
	case parts[0] == "api" && len(parts) > 2:
		i.Version, rest = parts[1], parts[2:]
	case parts[0] == "apis" && len(parts) > 3:
		i.Group, i.Version, rest = parts[1], parts[2], parts[3:]
	default:
		return
	}
	i.IsResource = true
	if rest[0] == "watch" || rest[0] == "proxy" {
		i.Legacy = true
		if rest = rest[1:]; len(rest) == 0 {
			return
		}
	}
	if rest[0] == "namespaces" && len(rest) > 1 {
		i.Namespace = rest[1]
		// status and finalize are subresources of the namespace itself, anything
		// else behind the name is a resource inside it.
		if len(rest) > 2 && rest[2] != "status" && rest[2] != "finalize" {
			rest = rest[2:]
		}
	}
	i.Resource = rest[0]
	if len(rest) > 1 {
		i.Name = rest[1]
	}
	if len(rest) > 2 {
		i.Subresource = strings.Join(rest[2:], "/")
	}
	if i.Group == "" && i.Resource == "namespaces" {
		i.Namespace = "" // the name of a namespace, which is in none itself
	}
}

func (i *Info) verb(method string, query url.Values) string {
	switch method {
	case http.MethodPost:
		return Create
	case http.MethodPut:
		return Update
	case http.MethodPatch:
		return Patch
	case http.MethodDelete:
		if i.Name == "" {
			return DeleteCollection
		}
		return Delete
	case http.MethodGet, http.MethodHead:
		if i.Legacy {
			return Watch
		}
		if i.Name != "" {
			return Get
		}
		// Python says False; the API server reads booleans so.
		if watch := query.Get("watch"); query.Has("watch") && watch != "0" && !strings.EqualFold(watch, "false") {
			return Watch
		}
		return List
	}
	return strings.ToLower(method)
}

func parseOptions(query url.Values) Options {
	o := Options{
		ResourceVersion:      query.Get("resourceVersion"),
		ResourceVersionMatch: query.Get("resourceVersionMatch"),
		Continue:             query.Get("continue"),
		DryRun:               query.Has("dryRun"),
	}
	valid := func(ok bool) {
		if !ok {
			o.Invalid = true
		}
	}
	if s := query.Get("labelSelector"); s != "" {
		selector, err := labels.Parse(s)
		valid(err == nil)
		if err == nil {
			o.LabelSelector = selector.String()
		}
	}
	if s := query.Get("fieldSelector"); s != "" {
		selector, err := fields.ParseSelector(s)
		valid(err == nil)
		if err == nil {
			o.FieldSelector = selector.String()
		}
	}
	if s := query.Get("limit"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		valid(err == nil && n >= 0)
		o.Limit = n
	}
	if s := query.Get("timeoutSeconds"); s != "" {
		n, err := strconv.ParseInt(s, 10, 32)
		valid(err == nil && n >= 0)
		o.Timeout = time.Duration(n) * time.Second
	}
	flag := func(name string) bool {
		s := query.Get(name)
		on, err := strconv.ParseBool(s)
		valid(s == "" || err == nil)
		return on
	}
	o.SendInitialEvents = flag("sendInitialEvents")
	o.AllowWatchBookmarks = flag("allowWatchBookmarks")
	return o
}

// IsRead tells that the request changes nothing.
func (i *Info) IsRead() bool {
	switch i.Verb {
	case Get, List, Watch, "head", "options":
		return true
	}
	return false
}

// IsReview tells that the request is a POST that only asks, and changes nothing.
func (i *Info) IsReview() bool {
	if i.Verb != Create || i.Name != "" || i.Subresource != "" {
		return false
	}
	switch i.Group {
	case "authorization.k8s.io":
		switch i.Resource {
		case "selfsubjectaccessreviews", "subjectaccessreviews", "localsubjectaccessreviews", "selfsubjectrulesreviews":
			return true
		}
	case "authentication.k8s.io":
		return i.Resource == "tokenreviews" || i.Resource == "selfsubjectreviews"
	}
	return false
}

// CarriesToken tells that somebody's token is in the request and in the answer.
func (i *Info) CarriesToken() bool {
	return i.IsReview() && i.Resource == "tokenreviews"
}

// IsUnary tells that the answer is one object, list or document, and no stream.
func (i *Info) IsUnary() bool {
	return i.IsDocument() || (i.IsResource && i.Verb != Watch && i.Subresource == "" && !i.Legacy)
}

// IsDocument tells that the request is for one of the documents by which the
// API describes itself: discovery, OpenAPI, the version. They change seldom and
// are the same text for everybody who may read them.
func (i *Info) IsDocument() bool {
	if i.IsResource || i.Verb != Get {
		return false
	}
	path := strings.TrimSuffix(i.Path, "/")
	switch path {
	case "/api", "/apis", "/version", "/openapi/v2", "/openapi/v3", "/.well-known/openid-configuration", "/openid/v1/jwks":
		return true
	}
	for _, prefix := range []string{"/api/", "/apis/", "/openapi/v3/"} {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}
