package e2e

import (
	"net/http"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// recordedList is a collection that was read completely.
type recordedList struct {
	kind              kind
	namespace, labels string
	fields            string
	form              form
	version           string
}

// recorded reports whether a request that was sent online must have an offline answer.
func (d *differential) recorded(a ask, online outcome) bool {
	switch {
	case online.Status != http.StatusOK, a.match == "Exact":
		return false
	case online.kind == "Table":
		return online.pages == 1 && !d.doubted(a, online)
	case a.verb == "watch" && a.initial:
		return online.ended
	case a.verb == "watch":
		return !a.needsState() || d.covered(a)
	}
	return true
}

// doubted reports whether a newer list with a selector lacks rows of a Table, perhaps because they
// are gone.
func (d *differential) doubted(a ask, table outcome) bool {
	return slices.ContainsFunc(d.lists, func(c recordedList) bool {
		return c.kind == a.kind && (c.labels != "" || c.fields != "") && (c.namespace == "" || a.namespace == "" || c.namespace == a.namespace) &&
			c.version != table.version && newest(c.version, table.version) == c.version
	})
}

// covered reports whether a recorded collection has all requested objects.
func (d *differential) covered(a ask) bool {
	if a.match == "Exact" {
		return false
	}
	if !a.needsState() {
		return true
	}
	return slices.ContainsFunc(d.lists, func(c recordedList) bool {
		if c.kind != a.kind || c.namespace != "" && c.namespace != a.namespace || newest(a.version, c.version) != c.version {
			return false
		}
		if c.labels != "" && (c.labels != canonicalLabels(a.labels) || a.verb == "get") || c.fields != "" && (c.fields != canonicalFields(a.fields) || a.verb == "get") {
			return false
		}
		if c.fields != canonicalFields(a.fields) && !byIdentity(a) && c.form.metadata && !byMetadata(a) {
			return false
		}
		return slices.ContainsFunc(a.variant.forms, func(f form) bool { return f == c.form || converts(a.kind, c.form, f) })
	})
}

// byIdentity reports whether the field selector of a request has only name and namespace, and does
// not// contradict itself or the path.
func byIdentity(a ask) bool {
	selector, err := fields.ParseSelector(a.fields)
	if err != nil {
		return false
	}
	values := map[string]string{"metadata.namespace": a.namespace, "metadata.name": ""}
	for _, r := range selector.Requirements() {
		value, found := values[r.Field]
		if !found || r.Operator == selection.NotEquals || r.Value == "" || value != "" && value != r.Value {
			return false
		}
		values[r.Field] = r.Value
	}
	return true
}

// byMetadata reports whether the fields of a request are in the metadata.
func byMetadata(a ask) bool {
	selector, err := fields.ParseSelector(a.fields)
	return err == nil && !slices.ContainsFunc(selector.Requirements(), func(r fields.Requirement) bool { return !strings.HasPrefix(r.Field, "metadata.") })
}

// converts reports whether one form can be converted to another.
func converts(k kind, from, to form) bool {
	return (to.metadata || !from.metadata) && (to.metadata || k.Group != customGroup || from.protobuf == to.protobuf)
}

func formOf(o outcome) form {
	return form{o.isProtobuf(), strings.HasPrefix(o.kind, "PartialObjectMetadata") || strings.HasPrefix(o.apiVersion, "meta.k8s.io/")}
}

func canonicalLabels(s string) string {
	selector, err := labels.Parse(s)
	if err != nil {
		return s
	}
	return selector.String()
}

func canonicalFields(s string) string {
	selector, err := fields.ParseSelector(s)
	if err != nil {
		return s
	}
	return selector.String()
}
