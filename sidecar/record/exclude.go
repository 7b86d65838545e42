package record

import (
	"net/http"
	"net/url"

	"rockpool.dev/sidecar/api/exclude"
	"rockpool.dev/sidecar/api/request"
)

// exclusion is Rules for the store.
type exclusion struct{ exclude.Rules }

// Path reports whether the response to a GET of this path shows an excluded resource.
func (x exclusion) Path(path string) bool {
	u, err := url.Parse(path)
	if err != nil {
		return true // it cannot be told
	}
	info := request.Parse(&http.Request{Method: http.MethodGet, URL: u, Header: http.Header{}})
	return Excluded(x.Rules, &info)
}

// Excluded reports whether the answer to a request may show something that is excluded.
func Excluded(rules exclude.Rules, info *request.Info) bool {
	if !info.IsResource || len(rules) == 0 {
		return false
	}
	if info.Name != "" && info.Class != request.ClassWatch {
		return rules.Object(info.Group, info.Resource, info.Namespace)
	}
	return rules.Scope(info.Group, info.Resource, info.Namespace)
}

// Purge deletes what is excluded by now, with the next group.
func (r *Recorder) Purge() {
	r.enqueue(change{do: func(g *group) error { return g.tx.Exclude(exclusion{r.exclude.Rules()}, true) }})
}
