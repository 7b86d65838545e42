// Package request parses an HTTP request to the Kubernetes API: its verb, resource, scope and the
// forms of response that it accepts. It reads only method, URL and header. It decides nothing and
// does no I/O.
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

// Verbs of requests for resources. For other paths the verb is the method in lower case, as in
// RBAC's nonResourceURLs.
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

// Info describes a request.
type Info struct {
	Verb string
	// Path is the URL's path, but without the prefix and the name of a deprecated watch path:
	// it is the path of a list of the same objects.
	Path string
	// IsResource means that the path names an API resource. Otherwise the fields of the next group
	// are empty.
	IsResource bool

	Group, Version, Resource string
	Namespace                string // empty: cluster-scoped, or all namespaces
	Name, Subresource        string

	Options
	// Accept has the clauses of the Accept header, best first.
	Accept []MediaType
	// RawAccept is the Accept header as sent.
	RawAccept string
	// Pretty means that the API server indents JSON for this client.
	Pretty bool
	// Head means that the client wants only the header of the response.
	Head bool
	// Unclean means that the path has an empty or a dot segment. The API server takes such a path
	// as it is, and finds nothing there.
	Unclean bool
	// Impersonated means that the request asks to act as another user.
	Impersonated bool
	// Legacy marks the deprecated /proxy/ path prefix, and a /watch/ prefix that does not make a
	// watch.
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
	// Watch is the parameter watch. A deprecated watch path makes a watch without it. The API
	// server then accepts and refuses the other parameters as those of a list.
	Watch               bool
	SendInitialEvents   bool
	HasInitialEvents    bool // sendInitialEvents is set, to whatever value
	AllowWatchBookmarks bool
	Timeout             time.Duration // timeoutSeconds; 0: not set
	// DryRun means that a write must not be persisted.
	DryRun bool
	// Invalid means that a parameter does not parse as its type. Only the API server can answer
	// such a request, because only it knows the right error.
	Invalid bool
	// Narrowed means that a parameter may choose a part of the answer, or change it, in a way
	// that Rockpool does not know.
	Narrowed bool
}

// Parse parses a request. It never fails: a path that it does not understand is not a resource.
func Parse(r *http.Request) Info {
	info := Info{
		Verb:      lower(r.Method),
		Path:      r.URL.Path,
		RawAccept: strings.Join(r.Header.Values("Accept"), ","),
		Head:      r.Method == http.MethodHead,
		Unclean:   isUnclean(r.URL.Path),
	}
	info.Accept = ParseAccept(info.RawAccept)
	for name := range r.Header {
		if strings.HasPrefix(name, "Impersonate-") {
			info.Impersonated = true
		}
	}
	var query url.Values
	var err error
	if r.URL.RawQuery != "" {
		query, err = url.ParseQuery(r.URL.RawQuery)
	}
	info.Options = parseOptions(query)
	info.Pretty = info.isPretty(r.UserAgent(), query)
	info.Narrowed = err != nil || mayNarrow(query) // an API server may read more than url does
	prefix := info.parsePath()
	if info.IsResource {
		info.Verb = info.verb(r.Method)
	}
	if prefix == "watch" && r.Method == http.MethodGet {
		info.parseWatchPath()
	}
	info.Class = info.classify()
	info.Unrecorded = info.unrecorded()
	return info
}

// lower is a method in lower case.
func lower(method string) string {
	if method == http.MethodGet { // nearly always
		return Get
	}
	return strings.ToLower(method)
}

// parsePath parses /api/VERSION/… and /apis/GROUP/VERSION/…. It returns the deprecated prefix, watch
// or proxy, if the path has one.
func (i *Info) parsePath() (prefix string) {
	if i.Unclean {
		return ""
	}
	parts := strings.Split(strings.Trim(i.Path, "/"), "/")
	var rest []string
	switch {
	case parts[0] == "api" && len(parts) > 2:
		i.Version, rest = parts[1], parts[2:]
	case parts[0] == "apis" && len(parts) > 3:
		i.Group, i.Version, rest = parts[1], parts[2], parts[3:]
	default:
		return ""
	}
	i.IsResource = true
	if rest[0] == "watch" || rest[0] == "proxy" {
		prefix, i.Legacy = rest[0], true
		if rest = rest[1:]; len(rest) == 0 {
			return prefix
		}
	}
	if rest[0] == "namespaces" && len(rest) > 1 {
		i.Namespace = rest[1]
		// status and finalize are subresources of the namespace itself. Anything else after the
		// name is a resource inside the namespace.
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
		i.Namespace = "" // namespaces are cluster-scoped
	}
	return prefix
}

// parseWatchPath makes a GET of a deprecated /watch/ path what it means: a watch of the collection,
// or of the one object that the path names
// (https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes).
// The name counts as a field selector, and contradicts another one.
func (i *Info) parseWatchPath() {
	switch i.Resource {
	case "", "watch", "proxy": // the last two have no ordinary path
		return
	}
	if i.Subresource != "" {
		return
	}
	if i.Name != "" {
		named := fields.OneTermEqualSelector("metadata.name", i.Name).String()
		switch selected, err := fields.ParseSelector(i.FieldSelector); {
		case i.FieldSelector == "":
			i.FieldSelector = named
		case err != nil || !selects(selected, i.Name):
			i.Invalid = true
		}
	}
	i.Legacy, i.Name = false, ""
	i.Path = "/api/" + i.Version
	if i.Group != "" {
		i.Path = "/apis/" + i.Group + "/" + i.Version
	}
	if i.Namespace != "" {
		i.Path += "/namespaces/" + i.Namespace
	}
	i.Path += "/" + i.Resource
}

func selects(s fields.Selector, name string) bool {
	value, ok := s.RequiresExactMatch("metadata.name")
	return ok && value == name
}

func (i *Info) verb(method string) string {
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
		if i.Watch {
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
	if query.Has("limit") {
		n, err := strconv.ParseInt(query.Get("limit"), 10, 64)
		valid(err == nil && n >= 0)
		o.Limit = n
	}
	if query.Has("timeoutSeconds") {
		n, err := strconv.ParseInt(query.Get("timeoutSeconds"), 10, 32)
		valid(err == nil && n >= 0)
		o.Timeout = time.Duration(n) * time.Second
	}
	o.Watch = Flag(query, "watch")
	o.SendInitialEvents, o.HasInitialEvents = Flag(query, "sendInitialEvents"), query.Has("sendInitialEvents")
	o.AllowWatchBookmarks = Flag(query, "allowWatchBookmarks")
	return o
}

// Flag reads a boolean parameter as the API server does
// (runtime.Convert_Slice_string_To_bool): 0 and false in any case, such as Python's False, mean
// no. Any other value means yes, also an empty one.
func Flag(query url.Values, name string) bool {
	value := query.Get(name)
	return query.Has(name) && value != "0" && !strings.EqualFold(value, "false")
}

// IsRead reports whether the request only reads.
func (i *Info) IsRead() bool {
	switch i.Verb {
	case Get, List, Watch, "head", "options":
		return true
	}
	return false
}

// IsReview reports whether the request is a review: a POST that asks a question and changes
// nothing.
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

// CarriesToken reports whether the request and its response contain a user's token.
func (i *Info) CarriesToken() bool {
	return i.IsReview() && i.Resource == "tokenreviews"
}

// IsUnary reports whether the response is one object, list or document, not a stream.
func (i *Info) IsUnary() bool {
	return i.IsDocument() || (i.IsResource && i.Verb != Watch && i.Subresource == "" && !i.Legacy)
}

// IsDocument reports whether the request is for a document that describes the API: discovery,
// OpenAPI or the version. Such documents change seldom, and all clients that may read one get the
// same bytes.
func (i *Info) IsDocument() bool {
	if i.IsResource || i.Unclean || i.Verb != Get {
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
