package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"rockpool.dev/store"
)

// Change is an object that two states show differently.
type Change struct {
	Account, Resource, Namespace, Name string
	Cached, Other                      string // resourceVersions; empty: it is not there
}

// String is a line for a person: + there is one more elsewhere, - it is only in the cache, ~ it has
// another version.
func (c Change) String() string {
	name := c.Name
	if c.Namespace != "" {
		name = c.Namespace + "/" + name
	}
	switch {
	case c.Cached == "":
		return fmt.Sprintf("+ %s %s (%s)", c.Resource, name, c.Other)
	case c.Other == "":
		return fmt.Sprintf("- %s %s (%s)", c.Resource, name, c.Cached)
	}
	return fmt.Sprintf("~ %s %s (%s → %s)", c.Resource, name, c.Cached, c.Other)
}

// identity is an object in one form of words.
type identity struct{ account, resource, namespace, name string }

// Fetch sends a GET to the API server. The path may have a query.
type Fetch func(ctx context.Context, path, accept string) (*http.Response, error)

// DiffServer compares the lists that are recorded whole with the API server's. It calls f for each
// difference, and skipped for each list that cannot be compared, with the reason. Objects that were
// only read alone are not compared. It reads only the metadata of each object.
func (c *Cache) DiffServer(ctx context.Context, s Selection, fetch Fetch, f func(Change), skipped func(string)) error {
	is := func(store.Resource) bool { return true }
	if s.Type != "" {
		var err error
		if is, err = c.resources(ctx, s.Type); err != nil {
			return err
		}
	}
	stock, err := c.db.Inventory(ctx)
	if err != nil {
		return err
	}
	for _, list := range newest(stock) {
		if !is(list.Of()) || s.Account != "" && list.Principal != s.Account || s.Namespace != "" && list.Namespace != "" && list.Namespace != s.Namespace {
			continue
		}
		cached, err := c.versionsOf(ctx, list, s)
		if err == nil {
			var there map[identity]string
			if there, err = versionsAt(ctx, list, s, fetch); err == nil {
				compare(cached, there, f)
				continue
			}
		}
		if ctx.Err() != nil {
			return err
		}
		skipped(fmt.Sprintf("%s: %v", qualifiedName(list.Of()), err))
	}
	return nil
}

// newest returns the complete collections, of those of one scope in several forms and versions the
// one that was in step last.
func newest(stock []store.Stock) (out []store.Collection) {
	for _, s := range stock {
		if s.State != store.Complete {
			continue
		}
		same := slices.IndexFunc(out, func(o store.Collection) bool {
			return o.Of() == s.Of() && o.Namespace == s.Namespace && o.LabelSelector == s.LabelSelector && o.FieldSelector == s.FieldSelector
		})
		switch {
		case same < 0:
			out = append(out, s.Collection)
		case s.SyncedAt.After(out[same].SyncedAt):
			out[same] = s.Collection
		}
	}
	return out
}

// versionsOf reads the versions of the objects of a collection.
func (c *Cache) versionsOf(ctx context.Context, list store.Collection, s Selection) (map[identity]string, error) {
	versions := map[identity]string{}
	r := store.Range{Namespace: s.Namespace, Name: s.Name}
	for {
		next, err := c.db.List(ctx, list.ID, list.Revision, r, func(o store.Object) error {
			versions[identity{list.Principal, qualifiedName(list.Of()), o.Namespace, o.Name}] = o.ResourceVersion
			return nil
		})
		if err != nil || next == nil {
			return versions, err
		}
		r.After = next
	}
}

// metadataList is what the comparison needs of a PartialObjectMetadataList.
type metadataList struct {
	Kind, Message string // of a Status: what is wrong
	Metadata      struct{ Continue string }
	Items         []struct {
		Metadata struct{ Namespace, Name, ResourceVersion string }
	}
}

// versionsAt asks the API server for the versions of the objects of a collection.
func versionsAt(ctx context.Context, list store.Collection, s Selection, fetch Fetch) (map[identity]string, error) {
	versions := map[identity]string{}
	query := url.Values{"limit": {"500"}}
	for key, value := range map[string]string{"labelSelector": list.LabelSelector, "fieldSelector": list.FieldSelector} {
		if value != "" {
			query.Set(key, value)
		}
	}
	path := pathOf(list.Group, list.Version, list.Resource, list.Namespace, "")
	for {
		page, err := get(ctx, path+"?"+query.Encode(), fetch)
		if err != nil {
			return nil, err
		}
		for _, item := range page.Items {
			m := item.Metadata
			if (s.Namespace == "" || m.Namespace == s.Namespace) && (s.Name == "" || m.Name == s.Name) {
				versions[identity{list.Principal, qualifiedName(list.Of()), m.Namespace, m.Name}] = m.ResourceVersion
			}
		}
		if page.Metadata.Continue == "" {
			return versions, nil
		}
		query.Set("continue", page.Metadata.Continue)
	}
}

func get(ctx context.Context, path string, fetch Fetch) (page metadataList, err error) {
	resp, err := fetch(ctx, path, "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")
	if err != nil {
		return page, err
	}
	defer resp.Body.Close()
	err = json.NewDecoder(resp.Body).Decode(&page)
	if resp.StatusCode != http.StatusOK {
		return page, fmt.Errorf("the API server says %d %s", resp.StatusCode, page.Message)
	}
	if err == nil && page.Kind != "PartialObjectMetadataList" {
		err = errors.New("the API server answers with a " + page.Kind)
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return page, err
}

// DiffCache compares the objects of two caches, each as a program would get it.
func (c *Cache) DiffCache(ctx context.Context, other *Cache, s Selection, f func(Change)) error {
	mine, err := c.answers(ctx, s)
	if err != nil {
		return err
	}
	theirs, err := other.answers(ctx, s)
	if err != nil {
		return err
	}
	compare(mine, theirs, f)
	return nil
}

// answers reads the versions of the objects that a program would get.
func (c *Cache) answers(ctx context.Context, s Selection) (map[identity]string, error) {
	versions := map[identity]string{}
	_, err := c.Objects(ctx, s, func(o Object) error {
		if o.JSON != nil {
			versions[identity{o.Principal, qualifiedName(o.Resource), o.Namespace, o.Name}] = o.ResourceVersion()
		}
		return nil
	})
	return versions, err
}

// ResourceVersion is the version of the object; empty: it has none.
func (o *Object) ResourceVersion() string {
	var partial struct {
		Metadata struct{ ResourceVersion string }
	}
	_ = json.Unmarshal(o.JSON, &partial) // an answer that is no object has no version
	return partial.Metadata.ResourceVersion
}

func compare(cached, other map[identity]string, f func(Change)) {
	all := maps.Clone(cached)
	maps.Copy(all, other)
	for _, id := range slices.SortedFunc(maps.Keys(all), identity.compare) {
		if cached[id] != other[id] {
			f(Change{id.account, id.resource, id.namespace, id.name, cached[id], other[id]})
		}
	}
}

func (i identity) compare(j identity) int {
	return slices.CompareFunc([]string{i.account, i.resource, i.namespace, i.name}, []string{j.account, j.resource, j.namespace, j.name}, strings.Compare)
}
