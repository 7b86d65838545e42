package request

import (
	"mime"
	"slices"
	"strconv"
	"strings"

	"rockpool.dev/sidecar/api/wire"
)

// Representation is the representation in which the API server returns objects.
type Representation string

// The representations that can be split into objects. A Table cannot.
const (
	Object   Representation = "object"   // the resource itself
	Metadata Representation = "metadata" // PartialObjectMetadata(List)
)

// MediaType is one clause of an Accept header.
type MediaType struct {
	Type string // such as "application/json"; may have wildcards
	As   string // the "as" parameter: Table, PartialObjectMetadata, …
	raw  string
	// pretty is the "pretty" parameter: JSON is to be indented.
	pretty bool
}

// ParseAccept parses an Accept header (RFC 9110 §12.5.1) into clauses, best first. It ignores
// invalid clauses. Without a header the client accepts everything.
func ParseAccept(header string) []MediaType {
	if strings.TrimSpace(header) == "" {
		return []MediaType{{Type: "*/*", raw: "*/*"}}
	}
	if !strings.Contains(header, ",") && isBare(header) { // there is nothing to compare
		return []MediaType{{Type: header, raw: header}}
	}
	type weighted struct {
		MediaType
		q float64
	}
	var clauses []weighted
	for clause := range strings.SplitSeq(header, ",") {
		clause = strings.TrimSpace(clause)
		name, params, err := clause, map[string]string(nil), error(nil)
		if !isBare(clause) { // nearly all are
			name, params, err = mime.ParseMediaType(clause)
		}
		if err != nil {
			continue
		}
		q := 1.0
		if s, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(s, 64); err != nil || q <= 0 {
				continue
			}
		}
		clauses = append(clauses, weighted{MediaType{Type: name, As: params["as"], raw: clause, pretty: params["pretty"] == "1"}, q})
	}
	slices.SortStableFunc(clauses, func(a, b weighted) int {
		switch {
		case a.q > b.q:
			return -1
		case a.q < b.q:
			return 1
		}
		return 0
	})
	out := make([]MediaType, len(clauses))
	for i, c := range clauses {
		out[i] = c.MediaType
	}
	return out
}

// isBare reports whether a clause is only a media type in lower case.
func isBare(clause string) bool {
	slash := strings.IndexByte(clause, '/')
	return slash > 0 && slash < len(clause)-1 &&
		!strings.ContainsFunc(clause[slash+1:], notBare) && !strings.ContainsFunc(clause[:slash], notBare)
}

func notBare(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '.' && r != '-' && r != '+' && r != '*'
}

// Representation returns the representation that the clause asks for. It reports false for one that
// cannot be split into objects.
func (m MediaType) Representation() (Representation, bool) {
	switch m.As {
	case "":
		return Object, true
	case "PartialObjectMetadata", "PartialObjectMetadataList":
		return Metadata, true
	}
	return "", false
}

// Form is an encoding and a representation of a response that can be split into objects.
type Form struct {
	Format         wire.Format
	Representation Representation
}

// format returns the encoding that the clause accepts. For a wildcard the server chooses JSON.
func (m MediaType) format() wire.Format {
	switch m.Type {
	case "*/*", "application/*":
		return wire.JSON
	}
	return wire.FormatOf(m.Type)
}

// Forms returns the forms that the client accepts, best first. Full objects after
// PartialObjectMetadata are left out: clients list them for servers without PartialObjectMetadata,
// and client-go's metadata client cannot even read full objects in a watch.
func (i *Info) Forms() []Form {
	var out []Form
	for _, m := range i.Accept {
		r, ok := m.Representation()
		if r == Object && slices.ContainsFunc(out, func(f Form) bool { return f.Representation == Metadata }) {
			continue
		}
		form := Form{m.format(), r}
		if ok && form.Format != nil && !slices.Contains(out, form) {
			out = append(out, form)
		}
	}
	return out
}

// Splits reports whether the form that the client likes best can be split into objects.
func (i *Info) Splits() bool {
	if len(i.Accept) == 0 {
		return false
	}
	_, ok := i.Accept[0].Representation()
	return ok
}

// AcceptList returns an Accept header for lists in this form alone. The Accept header of a watch
// cannot be used for a list: PartialObjectMetadataList has a name of its own.
func (f Form) AcceptList() string {
	if f.Representation == Metadata {
		return f.Format.MediaType() + ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
	}
	return f.Format.MediaType()
}

// AcceptWatch returns an Accept header for the events of a watch in this form alone.
func (f Form) AcceptWatch() string {
	if f.Representation == Metadata {
		return f.Format.MediaType() + ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	}
	return f.Format.MediaType()
}

// AcceptForm returns an Accept header for one form alone: the client's own clause if there is one.
func (i *Info) AcceptForm(form Form) string {
	for _, m := range i.Accept {
		if r, ok := m.Representation(); ok && r == form.Representation && m.Type == form.Format.MediaType() {
			return m.raw
		}
	}
	return form.Format.MediaType() // the client sent a wildcard
}
