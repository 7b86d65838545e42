package store

import (
	"cmp"
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxOutline bounds the objects of all outlines. Each takes 16 bytes.
	maxOutline = 32 << 10
	// maxOutlines bounds the outlines, also those of empty lists. Each takes some hundred bytes,
	// and every event looks through them.
	maxOutlines = 512
	// outlineWindow is how many items Find skips at most: those that the next list lacks.
	outlineWindow = 64
	// outlineLife is for how long lists are compared with an outline. Then one is compared with the
	// rows, which repairs what the disk has damaged.
	outlineLife = time.Hour
)

// Outline has the items of the list that a complete collection comes from: a hash of the bytes of
// each, and the row of the object. An item of the next list with the same hash need not be parsed,
// copied and compared. Outlines are in memory only.
type Outline struct {
	collection int64
	version    string // of the list
	told       int64  // no object of the collection was told later
	*outlineItems
}

// outlineItems are shared by the outlines of lists that follow each other without a difference.
type outlineItems struct {
	hashes []uint64
	ids    []int64
	made   time.Time // when each object was last compared with its row, or written
	// outdated means that an object was changed since, and that neither its id nor told shows that.
	outdated atomic.Bool
}

// Len is the number of items; 0 if o is nil.
func (o *Outline) Len() int {
	if o == nil {
		return 0
	}
	return len(o.hashes)
}

// Version is the resourceVersion of the list.
func (o *Outline) Version() string { return o.version }

// Find returns the position of an item at or soon after a position, -1 if there is none.
func (o *Outline) Find(hash uint64, from int) int {
	if o == nil {
		return -1
	}
	window := o.hashes[min(from, len(o.hashes)):min(from+outlineWindow, len(o.hashes))]
	if i := slices.Index(window, hash); i >= 0 {
		return from + i
	}
	return -1
}

// outlines are the outlines of the complete collections, as far as there is room for them.
type outlines struct {
	mu  sync.Mutex
	all []scopedOutline // the least recently recorded first
	len int             // of all of them
}

type scopedOutline struct {
	scope Scope
	*Outline
}

// Outline returns the outline of a scope's complete collection; nil: there is none.
func (db *DB) Outline(s Scope) *Outline {
	f, release, err := db.acquire()
	if err != nil {
		return nil
	}
	defer release()
	o := f.outlines.get(s)
	if o != nil && db.opts.Now().Sub(o.made).Abs() > outlineLife {
		return nil
	}
	return o
}

func (o *outlines) get(s Scope) *Outline {
	o.mu.Lock()
	defer o.mu.Unlock()
	if i := slices.IndexFunc(o.all, func(in scopedOutline) bool { return in.scope == s }); i >= 0 {
		return o.all[i].Outline
	}
	return nil
}

// put adds the outline of a scope, if it has one, in the place of the one before.
func (o *outlines) put(s scopedOutline) {
	o.drop(func(in scopedOutline) bool { return in.scope == s.scope })
	if s.Outline == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all, o.len = append(o.all, s), o.len+s.Len()
	for o.len > maxOutline || len(o.all) > maxOutlines {
		o.len -= o.all[0].Len()
		o.all = slices.Delete(o.all, 0, 1)
	}
}

// drop forgets outlines.
func (o *outlines) drop(which func(scopedOutline) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = slices.DeleteFunc(o.all, func(in scopedOutline) bool {
		drop := which(in)
		if drop {
			o.len -= in.Len()
		}
		return drop
	})
}

// forgetIfTold forgets the outline of a collection of which an object is written that does not show
// that it came after the list.
func (tx *Tx) forgetIfTold(collection, told int64) {
	undetected := func(in scopedOutline) bool {
		is := in.Outline != nil && in.collection == collection && told <= in.told
		if is {
			in.outdated.Store(true)
		}
		return is
	}
	tx.file.outlines.drop(undetected)
	tx.dropOutlines(undetected)
}

// dropOutlines forgets outlines of lists that the transaction records.
func (tx *Tx) dropOutlines(which func(scopedOutline) bool) {
	for i := range tx.outlines {
		if which(tx.outlines[i]) {
			tx.outlines[i].Outline = nil
		}
	}
}

// forgetMisleading forgets an outline by which a list could not be recorded, unless it has a
// successor by now: the next list is compared with the rows.
func (s *Snapshot) forgetMisleading(tx *Tx, o *Outline) {
	tx.file.outlines.drop(func(in scopedOutline) bool { return in.scope == s.scope && in.outlineItems == o.outlineItems })
}

// outlined collects the outline of a list that is being recorded.
type outlined struct {
	outlineItems
	before *outlineItems // which the list has all the same; nil: it has not
	off    bool          // there is none: it has too many items, or the bytes of one are unknown
}

// add adds the next item.
func (o *outlined) add(hash uint64, id int64) {
	if o.before != nil {
		o.hashes, o.ids = slices.Clone(o.before.hashes), slices.Clone(o.before.ids)
		o.before = nil
	}
	if o.off = o.off || hash == 0 || len(o.ids) == maxOutline/2; o.off {
		o.hashes, o.ids = nil, nil
		return
	}
	o.hashes, o.ids = append(o.hashes, hash), append(o.ids, id)
}

// Same records items of the list that are the same as in an outline, from one position to another.
func (s *Snapshot) Same(tx *Tx, o *Outline, from, to int) error {
	if err := s.begin(tx); err != nil {
		return err
	}
	if s.base != o.collection {
		s.forgetMisleading(tx, o)
		return ErrBaseGone
	}
	if contradicted, err := s.contradictsEvents(tx, o, from, to); contradicted || err != nil {
		s.forgetMisleading(tx, o)
		return cmp.Or(err, ErrBaseGone)
	}
	if s.same == nil {
		s.same, s.sameIDs = o, idSet{}
	}
	observed, err := s.observed(tx)
	if err != nil {
		return err
	}
	observed = slices.DeleteFunc(observed, func(id int64) bool { return !slices.Contains(o.ids[from:to], id) })
	whole := from == 0 && to == o.Len() && s.outlined.ids == nil && s.outlined.before == nil && !s.outlined.off && len(observed) == 0
	for i := from; i < to; i++ {
		id := o.ids[i]
		if slices.Contains(observed, id) { // as in Add
			if id, err = s.refill(tx, id); err != nil {
				return err
			}
		} else if !s.unchanged.has(id) {
			s.unchanged.add(id)
			s.sameIDs.add(id)
		}
		if !whole {
			s.outlined.add(o.hashes[i], id)
		}
	}
	if whole {
		s.outlined.before = o.outlineItems
	}
	return nil
}

// contradictsEvents reports whether an event has changed or deleted one of the items of an outline,
// and the list was asked for after that: the cluster was restored from a backup. Only the list's
// client has the item then. Of a list that was under way, Commit decides.
func (s *Snapshot) contradictsEvents(tx *Tx, o *Outline, from, to int) (is bool, err error) {
	if s.when.Read != Latest || from == to {
		return false, nil
	}
	if to-from > o.Len()/8 { // else that costs more than a look at each
		if all, err := tx.count(s.base); err != nil || all.count == int64(o.Len()) && all.told <= o.told {
			return false, err
		}
	}
	ids, err := json.Marshal(o.ids[from:to])
	if err != nil {
		return false, err
	}
	var there int
	err = tx.tx.QueryRow(`SELECT count(*), coalesce(max(told > ?1 AND told < ?2), 0) FROM object WHERE collection_id = ?3 AND id IN (SELECT value FROM json_each(?4))`,
		o.told, s.when.Asked, s.base, string(ids)).Scan(&there, &is)
	if is || err != nil || there == to-from {
		return is, tx.wrapErr("compare with outline", err)
	}
	base, err := tx.Collection(s.scope, Complete)
	return base.ID != s.base || base.Position().Told < s.when.Asked, ignoreNotFound(err)
}

// refill writes an object of base to fill.
func (s *Snapshot) refill(tx *Tx, id int64) (int64, error) {
	object, err := s.object(tx, id)
	if err != nil {
		return 0, err
	}
	if err := s.beginFill(tx); err != nil {
		return 0, err
	}
	s.filled += int64(len(object.Payload))
	return tx.put(s.fill, &object)
}

// isOutlined reports whether the rows of base are surely those of the outline that the list was
// compared with: no other list was recorded since, and no event.
func (s *Snapshot) isOutlined(tx *Tx, base rows) bool {
	if s.same == nil {
		return true
	}
	current := tx.outline(s.scope)
	return current != nil && current.outlineItems == s.same.outlineItems && base.count == int64(s.same.Len()) && base.told <= s.same.told
}

// outline is DB.Outline with what the transaction has changed.
func (tx *Tx) outline(s Scope) *Outline {
	for _, o := range slices.Backward(tx.outlines) {
		if o.scope == s {
			return o.Outline
		}
	}
	return tx.file.outlines.get(s)
}

// outline notes the outline of the list, which is recorded as a collection.
func (s *Snapshot) outline(tx *Tx, collection int64, version string) error {
	written, err := tx.count(collection)
	if err != nil {
		return err
	}
	out, items := scopedOutline{scope: s.scope}, s.outlined.before
	if items == nil {
		items = &outlineItems{hashes: s.outlined.hashes, ids: s.outlined.ids, made: tx.db.opts.Now()}
		if s.same != nil {
			items.made = s.same.made
		}
	}
	// A bad list may have an object twice.
	if !s.outlined.off && written.count == int64(len(items.ids)) {
		out.Outline = &Outline{collection: collection, version: version, told: written.told, outlineItems: items}
	}
	tx.outlines = append(tx.outlines, out)
	return nil
}

// rows are the objects of a collection.
type rows struct {
	count int64
	told  int64 // when the last of them was told
}

func (tx *Tx) count(collection int64) (r rows, err error) {
	err = tx.tx.QueryRow(`SELECT count(*), coalesce(max(told), 0) FROM object WHERE collection_id = ?`, collection).Scan(&r.count, &r.told)
	return r, tx.wrapErr("count objects", err)
}
