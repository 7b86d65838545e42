package filter

import (
	"go.uber.org/zap"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/filter/rule"
	"rockpool.dev/sidecar/tally"
)

const kindTable = "Table"

var (
	fieldKind   = wire.Member{Name: "kind"}
	fieldRows   = wire.Member{Name: "rows", Repeated: true}
	fieldObject = wire.Member{Name: "object"}
)

// isTable reports whether an object that stands alone is a Table, which exists in JSON only.
func isTable(format wire.Format, inner []byte) bool {
	if format != wire.JSON {
		return false
	}
	kind, err := format.First(inner, fieldKind)
	return err == nil && string(kind) == `"`+kindTable+`"`
}

// row filters a row of a Table by the object in it: its metadata, or the whole with includeObject=Object.
// Its cells stay as the API server has rendered them. A row without object passes.
func (q *query) row(v *view, raw []byte, hide func(*rule.Object)) (edited []byte, keep bool) {
	object, err := wire.JSON.First(raw, fieldObject)
	if err != nil {
		q.filter.failed("", q.resource, err)
		return raw, true
	}
	if object == nil {
		q.filter.Repeated.Write(tally.Line{
			Level: zap.InfoLevel, Message: "a Table without objects cannot be filtered; its rows pass unchanged",
			Kind: []zap.Field{zap.String("resource", q.resource.String())},
		})
		return raw, true
	}
	o := rule.Object{Format: wire.JSON, Resource: q.resource, Raw: object}
	inner, keep := q.apply(v, &o)
	switch {
	case !keep:
		hide(&o)
		return nil, false
	case same(inner, object):
		return raw, true
	}
	edited, err = wire.JSON.Replace(nil, raw, fieldObject, func([]byte) ([]byte, bool, error) { return inner, true, nil })
	if err != nil { // it was read before
		return raw, true
	}
	return edited, true
}

// table filters a Table that stands alone. It returns false if it had rows and none is left.
func (q *query) table(v *view, table []byte) (edited []byte, keep bool) {
	rows, left, touched := 0, 0, false
	edited, err := wire.JSON.Replace(nil, table, fieldRows, func(raw []byte) ([]byte, bool, error) {
		rows++
		row, keep := q.row(v, raw, func(*rule.Object) {})
		if keep {
			left++
		}
		touched = touched || !keep || !same(row, raw)
		return row, keep, nil
	})
	if err != nil {
		q.filter.failed("", q.resource, err)
		return table, true
	}
	if !touched {
		return table, true
	}
	return edited, left > 0
}

// tableOf returns a Table of one row with an edited object in it. It has no definitions of columns, as
// the API server sends them with the first event alone.
func tableOf(row, edited []byte) []byte {
	replaced, err := wire.JSON.Replace(nil, row, fieldObject, func([]byte) ([]byte, bool, error) { return edited, true, nil })
	if err != nil { // it was read before
		replaced = row
	}
	table := []byte(`{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{},"columnDefinitions":null,"rows":[`)
	return append(append(table, replaced...), "]}"...)
}

// firstRow returns the object in the first row of a Table.
func firstRow(table []byte) ([]byte, error) {
	row, err := wire.JSON.First(table, fieldRows)
	if err != nil || row == nil {
		return nil, err
	}
	var object []byte
	err = wire.Elements(row, func(raw []byte) (err error) {
		if object == nil {
			object, err = wire.JSON.First(raw, fieldObject)
		}
		return err
	})
	return object, err
}
