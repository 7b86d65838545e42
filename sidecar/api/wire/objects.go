package wire

import (
	"encoding/json"
	"errors"
)

// maxObjects bounds the objects that Objects returns.
const maxObjects = 1000

var (
	errTooMany     = errors.New("too many objects")
	errNoFormat    = errors.New("neither JSON nor protobuf")
	errNoItems     = errors.New("not a list of API objects")
	errNoReference = errors.New("an object without a name or version")
)

// Objects returns the metadata of the objects of a list or a JSON Table, at most 1,000. It returns
// an error if it cannot tell all of them.
func Objects(format Format, raw []byte) ([]Meta, error) {
	if format == nil {
		return nil, errNoFormat
	}
	if m, err := format.ParseMeta(raw); err == nil && m.Kind == "Table" {
		return rowsOfTable(raw)
	}
	var out objects
	list := format.NewList(func(item []byte) error {
		m, err := format.ParseItem(item)
		if err != nil {
			return err
		}
		return out.add(m)
	})
	if _, err := list.Write(raw); err != nil {
		return nil, err
	}
	head, err := list.ListMeta()
	if err == nil && !head.HasItems {
		err = errNoItems
	}
	return out, err
}

// rowsOfTable returns the metadata of the rows of a JSON Table (meta.k8s.io/v1).
func rowsOfTable(raw []byte) (out objects, err error) {
	var table struct {
		Rows []struct {
			Object struct {
				Metadata struct{ Namespace, Name, UID, ResourceVersion string } `json:"metadata"`
			} `json:"object"`
		} `json:"rows"`
	}
	if err := json.Unmarshal(raw, &table); err != nil {
		return nil, err
	}
	if table.Rows == nil {
		return nil, errNoItems
	}
	for _, row := range table.Rows {
		o := row.Object.Metadata
		if err := out.add(Meta{Namespace: o.Namespace, Name: o.Name, UID: o.UID, ResourceVersion: o.ResourceVersion}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

type objects []Meta

func (o *objects) add(m Meta) error {
	switch {
	case len(*o) == maxObjects:
		return errTooMany
	case m.Name == "" || m.ResourceVersion == "":
		return errNoReference
	}
	*o = append(*o, m)
	return nil
}
