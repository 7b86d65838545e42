package store

import (
	"math/bits"
	"slices"
)

// baseRow is an object of base without its payload.
type baseRow struct {
	Key
	id           int64
	uid, version string
	encoding     Encoding
	checksum     int64
	size         int
	// observed means that there is an observation of it, which the list may contradict: a kill must
	// not undo that.
	observed bool
}

// equals reports whether the object is unchanged. That includes the payload: after a restore from a
// backup, the same resourceVersion can stand for other content.
func (r *baseRow) equals(o *Object) bool {
	return r.uid == o.UID && r.version == o.ResourceVersion && r.encoding == o.Encoding && r.size == len(o.Payload) && r.checksum == checksum(o.Payload)
}

// maxLookahead bounds the rows that a lookahead reads at once.
const maxLookahead = 256

// lookahead finds objects of base by their keys. The items of a list come in nearly the order of
// the index, so it reads many objects at once: one query an object costs several times as much. Out
// of order it reads few.
//
// Events may change base meanwhile. Such a change is older than the list, and is written twice, or
// it makes the list too old to be committed.
type lookahead struct {
	rows  []baseRow // in the order of the index, without gaps
	last  bool      // there are none after them
	most  int       // how many were read at once
	found int       // how many of them were found
}

// find returns the object of base with a key, nil if there is none.
func (l *lookahead) find(tx *Tx, res Resource, base int64, key Key) (*baseRow, error) {
	if base == 0 {
		return nil, nil
	}
	i, found := slices.BinarySearchFunc(l.rows, key, func(r baseRow, key Key) int { return r.compare(key) })
	before, after := i == 0 && !found, i == len(l.rows)
	if before || after && !l.last {
		if l.most = min(2*l.most, maxLookahead); 2*l.found < len(l.rows) || l.most == 0 {
			l.most = 1
		}
		if err := l.read(tx, res, base, key); err != nil {
			return nil, err
		}
		i, found = 0, len(l.rows) > 0 && l.rows[0].Key == key
	}
	if !found {
		return nil, nil
	}
	l.found++
	return &l.rows[i], nil
}

func (l *lookahead) read(tx *Tx, res Resource, base int64, from Key) error {
	l.rows, l.found = l.rows[:0], 0
	rows, err := tx.tx.Query(`SELECT id, namespace, name, uid, resource_version, encoding, checksum, size, EXISTS (SELECT 1 FROM observation t
			WHERE t.principal = ?1 AND t.api_group = ?2 AND t.resource = ?3 AND t.namespace = o.namespace AND t.name = o.name) FROM object o
		WHERE collection_id = ?4 AND (namespace, name) >= (?5, ?6) ORDER BY namespace, name LIMIT ?7`,
		res.Principal, res.Group, res.Resource, base, from.Namespace, from.Name, l.most)
	if err != nil {
		return tx.wrapErr("load collection", err)
	}
	defer rows.Close()
	for rows.Next() {
		var r baseRow
		if err := rows.Scan(&r.id, &r.Namespace, &r.Name, &r.uid, &r.version, &r.encoding, &r.checksum, &r.size, &r.observed); err != nil {
			return tx.wrapErr("load collection", err)
		}
		l.rows = append(l.rows, r)
	}
	l.last = len(l.rows) < l.most
	return tx.wrapErr("load collection", rows.Err())
}

// idSet is a set of row ids. Rows that were written together take one bit each.
type idSet map[int64]uint64 // by id / 64

func (s idSet) add(id int64)      { s[id>>6] |= 1 << (id & 63) }
func (s idSet) remove(id int64)   { s[id>>6] &^= 1 << (id & 63) }
func (s idSet) has(id int64) bool { return s[id>>6]>>(id&63)&1 == 1 }

func (s idSet) len() (n int64) {
	for _, word := range s {
		n += int64(bits.OnesCount64(word))
	}
	return n
}
