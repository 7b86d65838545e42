package store

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
)

// maxCopies bounds the copies; each takes about a KiB.
const maxCopies = 4096

// copies are collections as they were read last. A GET needs all of its resource, which may be a
// thousand: only those are read again that have another revision.
type copies struct {
	mu   sync.Mutex
	byID map[int64]*Collection
}

// of returns collections, which are given as pairs of id and revision. Those that are not known in
// that revision are read, in the same transaction, or errOutdated is returned.
func (c *copies) of(ctx context.Context, q querier, read bool, pairs string) (all []*Collection, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byID == nil || len(c.byID) > maxCopies {
		c.byID = map[int64]*Collection{}
	}
	var outdated []int64
	for rest := pairs; rest != ""; {
		var id, revision string
		id, rest, _ = strings.Cut(rest, " ")
		revision, rest, _ = strings.Cut(rest, " ")
		n, _ := strconv.ParseInt(id, 10, 64)        // the columns
		at, _ := strconv.ParseInt(revision, 10, 64) // are integers
		if one := c.byID[n]; one != nil && one.Revision == at {
			all = append(all, one)
		} else {
			outdated = append(outdated, n)
		}
	}
	switch {
	case outdated == nil:
		return all, nil
	case !read:
		return nil, errOutdated
	}
	ids, err := json.Marshal(outdated)
	if err != nil {
		return nil, err
	}
	rows, err := q.QueryContext(ctx, `SELECT `+collectionColumns+` FROM collection WHERE id IN (SELECT value FROM json_each(?))`, string(ids))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		one, err := scanCollection(rows.Scan)
		if err != nil {
			return nil, err
		}
		c.byID[one.ID] = &one
		all = append(all, &one)
	}
	return all, rows.Err()
}
