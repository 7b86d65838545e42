package inspect

import (
	"context"
	"fmt"
	"time"

	"rockpool.dev/store"
)

// Collection describes what was recorded of one list, or of single objects.
type Collection struct {
	Account   string    `json:"account"`
	Resource  string    `json:"resource"` // with its group: deployments.apps
	Version   string    `json:"version"`  // of the API
	Namespace string    `json:"namespace,omitempty"`
	Labels    string    `json:"labelSelector,omitempty"`
	Fields    string    `json:"fieldSelector,omitempty"`
	Form      string    `json:"form"`  // json or protobuf; with "metadata" if that is all
	State     string    `json:"state"` // complete; objects: single ones; filling: not read yet
	Objects   int       `json:"objects"`
	Bytes     int64     `json:"bytes"`
	At        string    `json:"resourceVersion,omitempty"`
	Synced    time.Time `json:"synced,omitzero"` // when it last equalled the server's state
	Age       string    `json:"age,omitempty"`   // since then
}

// Documents counts the recorded responses that cannot be split into objects: discovery, OpenAPI
// documents and tables.
type Documents struct {
	Count int
	Bytes int64
}

// List returns the collections, by account and resource, and counts the documents.
func (c *Cache) List(ctx context.Context) (all []Collection, d Documents, err error) {
	stock, err := c.db.Inventory(ctx)
	if err != nil {
		return nil, d, err
	}
	for _, s := range stock {
		all = append(all, Describe(s, c.now()))
	}
	documents, err := c.db.Documents(ctx)
	for _, r := range documents {
		d.Count++
		d.Bytes += r.Size
	}
	return all, d, err
}

// Describe describes a collection at a time.
func Describe(s store.Stock, now time.Time) Collection {
	out := Collection{
		Account: s.Principal, Resource: qualifiedName(s.Of()), Version: s.Version, Namespace: s.Namespace, Labels: s.LabelSelector, Fields: s.FieldSelector,
		Form: formOf(s.Scope), State: string(s.State), Objects: s.Objects, Bytes: s.Bytes, At: s.ResourceVersion,
	}
	if s.State == store.Single {
		out.State = "objects"
	}
	if s.State == store.Complete {
		out.Synced, out.Age = s.SyncedAt.UTC(), Age(now.Sub(s.SyncedAt))
	}
	return out
}

// formOf is the form of a collection in words.
func formOf(s store.Scope) string {
	form := "json"
	if s.MediaType == "application/vnd.kubernetes.protobuf" {
		form = "protobuf"
	}
	if s.Representation == "metadata" {
		form += " metadata"
	}
	return form
}

// Age is a duration in its two largest units: 3d4h, 5m12s.
func Age(d time.Duration) string {
	d = max(d, 0).Round(time.Second)
	const day = 24 * time.Hour
	switch {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return d.String()
}

// Links returns the changes of the link since a time, the first one first.
func (c *Cache) Links(ctx context.Context, since time.Time) ([]store.LinkChange, error) {
	return c.db.Links(ctx, since)
}
