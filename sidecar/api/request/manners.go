package request

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// isPretty reports whether the API server indents JSON for a client: as the client says, or else
// because the User-Agent shows that a person reads it (k8s.io/apiserver, negotiation.isPrettyPrint).
func (i *Info) isPretty(userAgent string, query url.Values) bool {
	if slices.ContainsFunc(i.Accept, func(m MediaType) bool { return m.pretty }) {
		return true
	}
	if value := query.Get("pretty"); value != "" {
		pretty, _ := strconv.ParseBool(value)
		return pretty
	}
	return slices.ContainsFunc([]string{"curl", "Wget", "Mozilla/5.0"}, func(name string) bool { return strings.HasPrefix(userAgent, name) })
}

// isUnclean reports whether a path has an empty or a dot segment. A slash at the end is allowed.
func isUnclean(path string) bool {
	inner := strings.TrimSuffix(strings.TrimPrefix(path, "/"), "/")
	if inner == "" {
		return false
	}
	for segment := range strings.SplitSeq(inner, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

// MayList reports whether a GET may be a list, by the number of its path's segments alone. It is
// quick, and takes some subresources for lists.
func MayList(r *http.Request) bool {
	if strings.Contains(r.URL.RawQuery, "watch") {
		return false
	}
	segments := strings.Count(strings.TrimSuffix(r.URL.Path, "/"), "/")
	switch {
	case strings.HasPrefix(r.URL.Path, "/api/"):
		return segments == 3 || segments == 5 // /api/v1/pods, /api/v1/namespaces/NAMESPACE/pods
	case strings.HasPrefix(r.URL.Path, "/apis/"):
		return segments == 4 || segments == 6
	}
	return false
}

// builtinGroups are the groups that kube-apiserver of Kubernetes 1.36 and before serves itself, not
// by a CustomResourceDefinition or another API server.
var builtinGroups = []string{
	"", "apps", "autoscaling", "batch", "extensions", "policy",
	"admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "authentication.k8s.io",
	"authorization.k8s.io", "certificates.k8s.io", "coordination.k8s.io", "discovery.k8s.io", "events.k8s.io",
	"flowcontrol.apiserver.k8s.io", "internal.apiserver.k8s.io", "networking.k8s.io", "node.k8s.io",
	"rbac.authorization.k8s.io", "resource.k8s.io", "scheduling.k8s.io", "storage.k8s.io", "storagemigration.k8s.io",
}

// IsBuiltin reports whether the request is for a resource that kube-apiserver itself serves. Such
// resources have no HEAD, and their resourceVersions are numbers.
func (i *Info) IsBuiltin() bool { return i.IsResource && slices.Contains(builtinGroups, i.Group) }

// The encodings that cannot be cut into objects here. They are converted as a whole, from and to JSON.
const (
	MediaTypeYAML = "application/yaml"
	MediaTypeCBOR = "application/cbor"
)

// InJSON returns the request with JSON in place of YAML or CBOR, and which of them the client likes
// best. It reports false if the client accepts neither. The API server makes both from what it gives
// as JSON. A watch is no such answer: it would be a sequence.
func (i Info) InJSON() (inJSON Info, mediaType string, ok bool) {
	at := slices.IndexFunc(i.Accept, func(m MediaType) bool { return m.Type == MediaTypeYAML || m.Type == MediaTypeCBOR })
	if at < 0 || i.Verb == Watch {
		return i, "", false
	}
	mediaType = i.Accept[at].Type
	var clauses []string
	for _, m := range i.Accept[at:] {
		if m.Type == mediaType {
			clauses = append(clauses, strings.Replace(m.raw, mediaType, "application/json", 1))
		}
	}
	i.RawAccept = strings.Join(clauses, ",")
	i.Accept = ParseAccept(i.RawAccept)
	return i, mediaType, true
}

// WithoutCBOR returns an Accept header without CBOR, for a client that also accepts a form that can
// be cut into objects: client-go's dynamic client asks for both where CBOR is turned on. It reports
// false if there is nothing to leave out, or nothing would be left.
func (i *Info) WithoutCBOR() (accept string, ok bool) {
	switch i.Class {
	case ClassGet, ClassList, ClassWatch, ClassWrite:
	default:
		return "", false
	}
	var rest []string
	for _, m := range i.Accept {
		if m.Type != MediaTypeCBOR && m.Type != MediaTypeCBOR+"-seq" {
			rest = append(rest, m.raw)
		}
	}
	if len(rest) == len(i.Accept) || len(i.Forms()) == 0 {
		return "", false
	}
	return strings.Join(rest, ","), true
}
