package inspect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/replay"
	"rockpool.dev/store"
)

// Cache is an attached cache.
type Cache struct {
	db       *store.DB
	replayer *replay.Replayer
	now      func() time.Time
}

// Open attaches to the cache in a directory. now tells the age of answers; nil means time.Now.
func Open(ctx context.Context, directory string, now func() time.Time) (*Cache, error) {
	db, err := store.Attach(ctx, directory)
	if err != nil {
		return nil, err
	}
	if now == nil {
		now = time.Now
	}
	return &Cache{db: db, replayer: replay.New(db, now, noRecorder{}), now: now}, nil
}

// Close detaches from the cache.
func (c *Cache) Close() error { return c.db.Close() }

// noRecorder stands for the recorder of the sidecar, whose memory is not known here.
type noRecorder struct{}

func (noRecorder) Used(int64)                              {}
func (noRecorder) Doubtful(store.Resource, store.Key) bool { return false }
func (noRecorder) Oversized(store.Resource, string) string { return "" }
func (noRecorder) Damaged(int64)                           {}

// Selection says which objects are meant. An empty field means any.
type Selection struct {
	// Type is a resource or a kind, in any case, perhaps with its group: pods, Pod,
	// deployments.apps.
	Type            string
	Namespace, Name string
	Account         string // the service account that has read them
}

// Object is a recorded object and the answer to a GET of it.
type Object struct {
	store.Versioned
	// JSON is the object; nil: the answer is another one, which Problem tells.
	JSON    []byte
	Problem string
	Age     time.Duration
	// Metadata means that only the metadata was recorded.
	Metadata bool
}

// Objects calls f for each selected object, ordered by account, resource, namespace and name. It
// returns how many there were. An object that is known to be gone counts as missing.
func (c *Cache) Objects(ctx context.Context, s Selection, f func(Object) error) (count int, err error) {
	names, err := c.names(ctx, s)
	if err != nil {
		return 0, err
	}
	for _, versions := range names {
		o, found, err := c.object(ctx, versions)
		if err != nil {
			return count, err
		}
		if !found {
			continue
		}
		count++
		if err := f(o); err != nil {
			return count, err
		}
	}
	return count, nil
}

// names returns the selected objects, each with the API versions in which it is recorded.
func (c *Cache) names(ctx context.Context, s Selection) (out [][]store.Versioned, err error) {
	is := func(store.Resource) bool { return true }
	if s.Type != "" {
		if is, err = c.resources(ctx, s.Type); err != nil {
			return nil, err
		}
	}
	all, err := c.db.Names(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range all {
		if !is(n.Resource) || s.Namespace != "" && n.Namespace != s.Namespace || s.Name != "" && n.Name != s.Name || s.Account != "" && n.Principal != s.Account {
			continue
		}
		if last := len(out) - 1; last >= 0 && out[last][0].Resource == n.Resource && out[last][0].Key == n.Key {
			out[last] = append(out[last], n)
		} else {
			out = append(out, []store.Versioned{n})
		}
	}
	return out, nil
}

// resources finds the resources that a person calls by a name.
func (c *Cache) resources(ctx context.Context, name string) (func(store.Resource) bool, error) {
	stock, err := c.db.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	plain, group, qualified := strings.Cut(strings.ToLower(name), ".")
	found := map[store.Resource]bool{}
	var known []string
	for _, s := range stock {
		if full := qualifiedName(s.Of()); !slices.Contains(known, full) {
			known = append(known, full)
		}
		called := s.Resource == plain || strings.ToLower(s.Kind) == plain
		if called && (!qualified || s.Group == group) {
			found[s.Of()] = true
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("nothing is recorded of %q; recorded are: %s", name, strings.Join(known, ", "))
	}
	return func(r store.Resource) bool { return found[r] }, nil
}

// qualifiedName is the name of a resource with its group: deployments.apps.
func qualifiedName(r store.Resource) string {
	if r.Group == "" {
		return r.Resource
	}
	return r.Resource + "." + r.Group
}

// accepted are the forms in which an object is asked for, the best first.
var accepted = []string{"application/json", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}

// object asks for an object, in the first version and form in which there is an answer.
func (c *Cache) object(ctx context.Context, versions []store.Versioned) (o Object, found bool, err error) {
	var problem string
	for i, accept := range accepted {
		for _, v := range versions {
			resp, err := c.answer(ctx, v, accept)
			var status apierrors.APIStatus
			switch {
			case errors.As(err, &status) && status.Status().Code == http.StatusNotFound:
				return o, false, nil
			case errors.Is(err, store.ErrDamaged), errors.Is(err, replay.ErrNotRecorded), errors.As(err, &status):
				if problem == "" {
					problem = err.Error()
				}
				continue
			case err != nil:
				return o, false, err
			}
			o = Object{Versioned: v, Metadata: i > 0}
			if o.JSON, err = io.ReadAll(resp.Body); err != nil {
				return o, false, err
			}
			seconds, err := strconv.ParseInt(resp.Header.Get("Age"), 10, 64)
			o.Age = time.Duration(seconds) * time.Second
			return o, true, err
		}
	}
	return Object{Versioned: versions[0], Problem: problem}, true, nil
}

func (c *Cache) answer(ctx context.Context, v store.Versioned, accept string) (*http.Response, error) {
	u := &url.URL{Path: pathOf(v.Group, v.Version, v.Resource.Resource, v.Namespace, v.Name)}
	header := http.Header{"Accept": {accept}}
	info := request.Parse(&http.Request{Method: http.MethodGet, URL: u, Header: header})
	return c.replayer.Answer(ctx, replay.Request{Principal: v.Principal, Info: info, Path: u.RequestURI()})
}

// pathOf is the path of an object, or without a name of a collection.
func pathOf(group, version, resource, namespace, name string) string {
	path := "/api/" + version
	if group != "" {
		path = "/apis/" + group + "/" + version
	}
	if namespace != "" {
		path += "/namespaces/" + namespace
	}
	path += "/" + resource
	if name != "" {
		path += "/" + name
	}
	return path
}

// Verify reads the whole file, calls bad for each thing that is wrong, and returns the number of
// objects that it has read.
func (c *Cache) Verify(ctx context.Context, bad func(string)) (objects int, err error) {
	return c.db.Verify(ctx, bad)
}
