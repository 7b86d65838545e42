package status

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"rockpool.dev/sidecar/api/request"
)

// Request is a request that a program has made.
type Request struct{ Account, Agent, Method, Path string }

// NoteAskedBy notes which programs have asked for what each collection has. A request for a single
// object counts for every collection that may have it.
func NoteAskedBy(collections []Collection, requests []Request) {
	for _, r := range requests {
		at, err := url.ParseRequestURI(r.Path)
		if err != nil {
			continue
		}
		info := request.Parse(&http.Request{Method: r.Method, URL: at, Header: http.Header{}})
		if !info.IsResource || !info.IsRead() && info.Verb != request.Watch {
			continue
		}
		resource := info.Resource
		if info.Group != "" {
			resource += "." + info.Group
		}
		name := AgentName(r.Agent)
		for i := range collections {
			c := &collections[i]
			same := c.Account == r.Account && c.Resource == resource && c.Version == info.Version
			if info.Name != "" {
				same = same && (c.Namespace == "" || c.Namespace == info.Namespace)
			} else {
				same = same && c.Namespace == info.Namespace && c.Labels == info.LabelSelector && c.Fields == info.FieldSelector
			}
			if same && !slices.Contains(c.AskedBy, name) {
				c.AskedBy = append(c.AskedBy, name)
				slices.Sort(c.AskedBy)
			}
		}
	}
}

// AgentName is the name of a User-Agent, for people.
func AgentName(userAgent string) string {
	const most = 60
	name, _, _ := strings.Cut(userAgent, "/")
	if name = strings.TrimSpace(name); name == "" {
		return "a program without a User-Agent"
	}
	return strings.ToValidUTF8(name[:min(len(name), most)], "?")
}
