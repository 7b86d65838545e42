package wire

import (
	"cmp"
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
)

// EditItem decides about one item of a list: it returns the bytes to send in its place, or false to
// leave the item out. raw is valid only during the call, and may be returned.
type EditItem func(raw []byte) (edited []byte, keep bool)

// Rewriter copies the body of a list that arrives in chunks, with items changed or left out. All
// other bytes stay as they are, with one exception: the size of a protobuf list is sent before its
// items. There, the Rewriter sends a size with some room for growth, and fills the space that is left at
// the end with a field that no list has. Decoders skip unknown fields
// (https://protobuf.dev/programming-guides/proto3/#unknowns).
//
// A body that is not a list passes unchanged, and so does the rest of a body in which an error is
// found. Memory is bounded by the largest item.
type Rewriter interface {
	// Append adds to dst what takes the place of p, the next bytes of the body.
	Append(dst, p []byte) []byte
	// Peek returns the list's own data read so far.
	Peek() ListMeta
	// Err returns the error because of which the rest of the body passes unchanged, or ErrNoRoom
	// for a changed item that passed unchanged.
	Err() error
}

// ErrNoRoom means that a changed item is larger than the room of its list allows.
var ErrNoRoom = errors.New("the changed item needs more room than the list has")

// NewRows splits the body of a list in JSON, or of a Table into its rows.
func NewRows(item func(raw []byte) error) ListSplitter { return &List{Item: item, rows: true} }

func (jsonFormat) NewRewriter(edit EditItem, _ int) Rewriter {
	r := &jsonRewriter{}
	r.list = List{Item: func(raw []byte) error {
		edited, keep := edit(raw)
		if !keep {
			return nil
		}
		if r.kept {
			r.dst = append(r.dst, ',')
		}
		r.kept = true
		r.dst = append(r.dst, edited...)
		return nil
	}, rows: true}
	return r
}

// jsonRewriter also takes the rows of a Table as items.
type jsonRewriter struct {
	list List
	dst  []byte
	kept bool // an item was written
}

func (r *jsonRewriter) Peek() ListMeta { return r.list.Peek() }
func (r *jsonRewriter) Err() error     { return r.list.failure }

func (r *jsonRewriter) Append(dst, p []byte) []byte {
	r.dst = dst
	l := &r.list
	for len(p) > 0 && l.failure == nil {
		state, written := l.state, len(r.dst)
		n, err := l.step(p)
		if err != nil {
			l.failure = err
			r.dst = append(r.dst[:written], l.unwritten(state)...)
			break
		}
		switch {
		case state == inItem: // Item has written it
		case n == 1 && p[0] == ',' && (state == atItem || state == afterItem): // stands before the next item
		default:
			r.dst = append(r.dst, p[:n]...)
		}
		p = p[n:]
	}
	r.dst = append(r.dst, p...)
	dst, r.dst = r.dst, nil
	return dst
}

// unwritten returns the bytes of the unfinished item, which has not been written yet.
func (l *List) unwritten(state listState) []byte {
	if state == inItem {
		return l.buf
	}
	return nil
}

// paddingField is the number of the field that fills unused space. Lists have the fields 1 and 2.
const paddingField protowire.Number = 15

const (
	// minPadding is the size of an empty padding field. A single byte cannot be filled.
	minPadding = 2
	// largePadding is the size of the padding that is sent as soon as it fits, so that the space
	// of items that are left out does not collect in memory.
	largePadding = 16 << 10
)

func (protobufFormat) NewRewriter(edit EditItem, room int) Rewriter {
	r := &protobufRewriter{edit: edit, room: max(room, 2*minPadding), spare: max(room, 2*minPadding)}
	r.list.item = func(raw []byte) error { r.item = raw; return nil }
	return r
}

// protobufRewriter has the states of a protobufList.
type protobufRewriter struct {
	edit  EditItem
	in    chunkBuffer
	list  protobufList
	dst   []byte
	item  []byte // of the field just read; nil: it is no item
	room  int
	spare int // bytes of the announced size that are not used yet
	// noRoom is ErrNoRoom once an item has passed unchanged because of it.
	noRoom error
}

func (r *protobufRewriter) Peek() ListMeta { return r.list.meta }
func (r *protobufRewriter) Err() error     { return cmp.Or(r.in.failure, r.noRoom) }

func (r *protobufRewriter) Append(dst, p []byte) []byte {
	r.dst = dst
	if r.in.failure == nil {
		_, err := r.in.write(p, r.step)
		if p = nil; err != nil { // what was held back passes as well
			p, r.in.unfinished = r.in.unfinished, nil
		}
	}
	r.dst = append(r.dst, p...)
	dst, r.dst = r.dst, nil
	return dst
}

func (r *protobufRewriter) step(p []byte) (int, error) {
	l := &r.list
	state := l.state
	if state != atListField {
		n, err := l.step(p)
		switch {
		case err != nil || n == 0:
		case state == atEnvelopeField && l.state == atListField:
			r.dst = protowire.AppendTag(r.dst, unknownRaw, protowire.BytesType)
			r.dst = protowire.AppendVarint(r.dst, uint64(l.remaining+r.room))
		default:
			r.dst = append(r.dst, p[:n]...)
		}
		return n, err
	}
	r.item = nil
	n, err := l.step(p)
	if err != nil || n == 0 {
		return n, err
	}
	if r.item == nil {
		r.dst = append(r.dst, p[:n]...)
	} else {
		r.write(p[:n], r.item)
	}
	if l.state != atListField {
		r.pad(r.spare)
	}
	return n, nil
}

// write writes what takes the place of an item whose whole field is given.
func (r *protobufRewriter) write(field, item []byte) {
	edited, keep := r.edit(item)
	switch {
	case !keep:
		r.spare += len(field)
	case len(edited) == len(item) && (len(item) == 0 || &edited[0] == &item[0]):
		r.dst = append(r.dst, field...)
	case ItemSize(len(edited)) > len(field)+r.spare-minPadding:
		r.noRoom = ErrNoRoom
		r.dst = append(r.dst, field...)
	default:
		r.spare += len(field) - ItemSize(len(edited))
		r.dst = AppendItem(r.dst, edited)
	}
	for r.spare >= largePadding+r.room {
		r.pad(largePadding)
	}
}

// pad fills size bytes, at least minPadding.
func (r *protobufRewriter) pad(size int) {
	r.spare -= size
	for size > 0 {
		n := min(size, largePadding)
		if size-n == 1 {
			n -= minPadding
		}
		contents := n - protowire.SizeTag(paddingField) - 1
		if contents > 127 {
			contents-- // the size takes two bytes
		}
		if n == 130 { // neither 127 nor 128 bytes of contents give this size
			contents, n = 126, 128
		}
		r.dst = protowire.AppendTag(r.dst, paddingField, protowire.BytesType)
		r.dst = protowire.AppendVarint(r.dst, uint64(contents))
		r.dst = append(r.dst, zeros[:contents]...)
		size -= n
	}
}

var zeros = make([]byte, largePadding)
