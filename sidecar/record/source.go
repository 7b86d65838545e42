package record

import (
	"errors"
	"slices"
	"strings"
	"time"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// Source is the request whose answer is recorded.
type Source struct {
	Principal string
	Info      request.Info
	// Path is the URL's path and query, for answers that are kept whole.
	Path string
	// Started is when the request was sent upstream.
	Started time.Time
	// Replayed tells of a watch that it began with what the cache had, which need
	// not be the collection that its events belong to: it may be a wider one, or in
	// another form.
	Replayed bool
	// Review tells how the answer to a review is kept. Nil: it is not.
	Review *Review
}

// scope is the collection that the answer belongs to.
func (s *Source) scope(f request.Form) store.Scope {
	return store.Scope{
		Principal: s.Principal,
		Group:     s.Info.Group, Version: s.Info.Version, Resource: s.Info.Resource,
		Representation: string(f.Representation),
		Namespace:      s.Info.Namespace,
		LabelSelector:  s.Info.LabelSelector, FieldSelector: s.Info.FieldSelector,
		MediaType: f.Format.MediaType(),
	}
}

// seenScope is the collection of objects of the resource that were read alone.
func (s *Source) seenScope(f request.Form) store.Scope {
	scope := s.scope(f)
	scope.Namespace, scope.LabelSelector, scope.FieldSelector = "", "", ""
	return scope
}

// latest tells that the request asked for the state at its own time, not for
// whatever the server had at hand.
func (s *Source) latest() bool { return s.Info.ResourceVersion == "" }

// ahead tells of a watch that its client begins with a state that is not recorded
// as a collection of its own. If there is none it has to be listed: else what the
// client reads from here on is lost, and offline it would go back.
func (s *Source) ahead() bool {
	rv := s.Info.ResourceVersion
	return s.Replayed || (!s.Info.SendInitialEvents && (rv == "" || rv == "0"))
}

// representation finds out the form of objects, or of lists, by their kind.
func representation(kind string) (request.Representation, bool) {
	switch kind {
	case "PartialObjectMetadata", "PartialObjectMetadataList":
		return request.Metadata, true
	case "Table", "Status":
		return "", false
	}
	return request.Object, true
}

// objectRow makes a row of an object that came alone. Rows are as items of lists:
// without kind and apiVersion where items do not say them.
func objectRow(f request.Form, raw []byte, m wire.Meta) store.Object {
	// Partial objects say their kind also in JSON lists.
	if f.Format == wire.JSON && f.Representation != request.Object {
		return itemRow(f, raw, m)
	}
	bare, ok := f.Format.Bare(raw)
	if !ok {
		return itemRow(f, raw, m)
	}
	o := itemRow(f, nil, m)
	o.Payload = bare
	if f.Format == wire.JSON {
		o.Encoding = store.JSONBare
	}
	return o
}

// itemRow makes a row of an item of a list.
func itemRow(f request.Form, raw []byte, m wire.Meta) store.Object {
	o := store.Object{Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion, Labels: string(m.Labels)}
	switch {
	case f.Format == wire.Protobuf:
		o.Encoding = store.Protobuf
	case m.Kind == "":
		o.Encoding = store.JSONBare
	default:
		o.Encoding = store.JSON
	}
	o.Payload = slices.Clone(raw) // raw is only lent
	return o
}

// listKind is the kind of a list of objects of a kind.
func listKind(kind string) string { return kind + "List" }

func isList(kind string) bool { return strings.HasSuffix(kind, "List") }

func itemKind(list string) string { return strings.TrimSuffix(list, "List") }

func isNotFound(err error) bool { return errors.Is(err, store.ErrNotFound) }
