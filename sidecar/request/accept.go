package request

import (
	"mime"
	"slices"
	"strconv"
	"strings"
)

// Representation is the form in which the API server gives objects.
type Representation string

// The representations that can be cut into objects. A Table cannot.
const (
	Object   Representation = "object"   // the resource itself
	Metadata Representation = "metadata" // PartialObjectMetadata(List)
)

// MediaType is one clause of an Accept header.
type MediaType struct {
	Type string // "application/json", or with wildcards
	As   string // the "as" parameter: Table, PartialObjectMetadata, …
	raw  string
}

// ParseAccept reads an Accept header (RFC 9110 §12.5.1) into clauses, best
// first. Clauses that cannot be read are left out. No header means anything.
func ParseAccept(header string) []MediaType {
	if strings.TrimSpace(header) == "" {
		return []MediaType{{Type: "*/*", raw: "*/*"}}
	}
	type weighed struct {
		MediaType
		q float64
	}
	var clauses []weighed
	for clause := range strings.SplitSeq(header, ",") {
		name, params, err := mime.ParseMediaType(clause)
		if err != nil {
			continue
		}
		q := 1.0
		if s, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(s, 64); err != nil || q <= 0 {
				continue
			}
		}
		clauses = append(clauses, weighed{MediaType{Type: name, As: params["as"], raw: strings.TrimSpace(clause)}, q})
	}
	slices.SortStableFunc(clauses, func(a, b weighed) int {
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

// JSON tells that the clause takes JSON.
func (m MediaType) JSON() bool {
	return m.Type == "application/json" || m.Type == "*/*" || m.Type == "application/*"
}

// Representation gives the splittable form that the clause asks for.
func (m MediaType) Representation() (Representation, bool) {
	switch m.As {
	case "":
		return Object, true
	case "PartialObjectMetadata", "PartialObjectMetadataList":
		return Metadata, true
	}
	return "", false
}

// JSONRepresentations lists the splittable forms that the client takes as JSON,
// best first.
func (i *Info) JSONRepresentations() []Representation {
	var out []Representation
	for _, m := range i.Accept {
		if r, ok := m.Representation(); ok && m.JSON() && !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	return out
}

// AcceptJSON is an Accept header for the splittable form r in JSON, in the
// client's own words where it has any.
func (i *Info) AcceptJSON(r Representation) string {
	for _, m := range i.Accept {
		if got, ok := m.Representation(); ok && got == r && m.Type == "application/json" {
			return m.raw
		}
	}
	if r == Metadata {
		return "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
	}
	return "application/json"
}
