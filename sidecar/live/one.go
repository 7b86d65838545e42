package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"rockpool.dev/sidecar/api/origin"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/replay"
	"rockpool.dev/store"
)

// maxOne bounds the list of one item, in bytes. The metadata of an object is at most some hundred KiB.
const maxOne = 1 << 20

// one is the API server's list of the first item, which shows its present state.
type one struct {
	version string
	objects int         // of the whole list; negative: the API server does not say
	counted bool        // objects is a remainingItemCount, which need not be exact
	item    *wire.Meta  // nil: there is none
	header  http.Header // of the answer
}

var (
	errRefused = errors.New("the API server refuses the list of one item, or answers it in another way")
	errOlder   = errors.New("the API server is at an older revision than what is recorded; perhaps the cluster was restored from a backup")
	// errContradiction says that two states at the same revision differ.
	errContradiction = errors.New("what is recorded contradicts the API server; perhaps the cluster was restored from a backup")
	// errCount says that nothing but the numbers of objects differ. That of kube-apiserver is
	// exact, but clients are not to rely on it (metav1.ListMeta).
	errCount = fmt.Errorf("%w: it counts another number of objects", errContradiction)
)

// askOne lists the first item of what a read asks for, in metadata only, as the same caller; with a key,
// that object.
func askOne(ctx context.Context, upstream http.RoundTripper, read *Read, named store.Key) (one, error) {
	r := read.HTTP.Clone(ctx)
	query := read.selectors()
	query.Set("limit", "1")
	if named != (store.Key{}) {
		selector := "metadata.name=" + named.Name
		if read.Info.Namespace == "" && named.Namespace != "" {
			selector += ",metadata.namespace=" + named.Namespace
		}
		if read.Info.FieldSelector != "" {
			selector += "," + read.Info.FieldSelector
		}
		query.Set("fieldSelector", selector)
	}
	r.Method = http.MethodGet
	r.URL.Path, r.URL.RawPath, r.URL.RawQuery = read.Info.Path, "", query.Encode()
	r.Header.Set("Accept", request.Form{Format: wire.JSON, Representation: request.Metadata}.AcceptList())
	r.Header.Del("Accept-Encoding") // the answer is for us
	resp, err := upstream.RoundTrip(r)
	if err != nil {
		return one{}, err
	}
	defer resp.Body.Close()
	if !origin.FromAPIServer(resp) {
		return one{}, origin.ErrForeign
	}
	if resp.StatusCode != http.StatusOK || wire.FormatOf(resp.Header.Get("Content-Type")) != wire.JSON || resp.Header.Get("Content-Encoding") != "" {
		return one{}, fmt.Errorf("%w: %s", errRefused, resp.Status)
	}
	return parseOne(resp.Header, io.LimitReader(resp.Body, maxOne))
}

// parseOne reads the list of one item.
func parseOne(header http.Header, body io.Reader) (one, error) {
	o := one{header: header, objects: -1}
	count := 0
	split := wire.JSON.NewList(func(raw []byte) error {
		m, err := wire.JSON.ParseItem(raw)
		if count++; count == 1 {
			o.item = &wire.Meta{Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion}
		}
		return err
	})
	if _, err := io.Copy(split, body); err != nil {
		return one{}, fmt.Errorf("%w: %w", errRefused, err)
	}
	list, err := split.ListMeta()
	if err != nil {
		return one{}, fmt.Errorf("%w: %w", errRefused, err)
	}
	if _, ok := store.ParseVersion(list.ResourceVersion); !ok || count > 1 {
		return one{}, fmt.Errorf("%w: %d items at version %q", errRefused, count, list.ResourceVersion)
	}
	var more struct {
		RemainingItemCount *int `json:"remainingItemCount"`
	}
	if len(list.Metadata) > 0 {
		if err := json.Unmarshal(list.Metadata, &more); err != nil {
			return one{}, fmt.Errorf("%w: %w", errRefused, err)
		}
	}
	o.version = list.ResourceVersion
	switch {
	case more.RemainingItemCount != nil:
		o.objects, o.counted = count+*more.RemainingItemCount, true
	case list.Continue == "":
		o.objects = count
	}
	return o, nil
}

// recorded gives the uid and the version of a recorded object, empty if there is none.
type recordedObject func(store.Key) (uid, version string, err error)

// mayFollow returns an error if the newest recorded object, which was asked for, is another one at the
// recorded version. One that has changed since, or is gone, shows only later whether it agrees.
func (o *one) mayFollow(r *replay.Recorded) error {
	if o.item == nil || store.NewerVersion(o.item.ResourceVersion, r.ResourceVersion) {
		return nil
	}
	if ours := r.Newest; ours.UID != o.item.UID || ours.ResourceVersion != o.item.ResourceVersion {
		return fmt.Errorf("%w: %s/%s is recorded at version %q, and it has %q", errContradiction, ours.Namespace, ours.Name, ours.ResourceVersion, o.item.ResourceVersion)
	}
	return nil
}

// counts reports whether a collection can be compared with the number of objects, because none of
// them has changed between the two.
func (o *one) counts(c *store.Collection) bool {
	return o.objects >= 0 && !store.NewerVersion(c.UnchangedSince(), o.version) && !store.NewerVersion(o.version, c.ResourceVersion)
}

// agrees returns an error if a collection contradicts the list of its first item.
func (o *one) agrees(c *store.Collection, objects int, recorded recordedObject) error {
	differs := o.counts(c) && o.objects != objects
	if differs && !o.counted {
		return fmt.Errorf("%w: %d objects are recorded, and it has %d", errContradiction, objects, o.objects)
	}
	if o.item != nil {
		if err := o.agreesAbout(store.Key{Namespace: o.item.Namespace, Name: o.item.Name}, c, recorded); err != nil {
			return err
		}
	}
	if differs {
		return fmt.Errorf("%w: %d, not %d", errCount, o.objects, objects)
	}
	return nil
}

// agreesAbout returns an error if the collection contradicts the list about the object that it was
// asked for. They can be compared as long as the object has not changed between the two.
func (o *one) agreesAbout(key store.Key, c *store.Collection, recorded recordedObject) error {
	if store.NewerVersion(o.version, c.ResourceVersion) && (o.item == nil || store.NewerVersion(o.item.ResourceVersion, c.ResourceVersion)) {
		return nil // the change is on its way to the collection
	}
	uid, version, err := recorded(key)
	if err != nil {
		return err
	}
	since, theirs := version, wire.Meta{}
	if version == "" {
		since = c.UnchangedSince()
	}
	if o.item != nil {
		theirs = *o.item
	}
	if store.NewerVersion(since, o.version) || uid == theirs.UID && version == theirs.ResourceVersion {
		return nil
	}
	return fmt.Errorf("%w: %s/%s is recorded at version %q, and it has %q", errContradiction, key.Namespace, key.Name, version, theirs.ResourceVersion)
}
