package store

import (
	"strconv"
	"sync"
)

// knownVersions has the highest version of each resource that is known of something, as far as
// versions are numbers. It only grows, except after a restore from a backup: a transaction that
// fails has told the client all the same.
type knownVersions struct {
	mu sync.Mutex
	of map[Resource]uint64
}

func (k *knownVersions) raise(res Resource, version string) {
	n, ok := ParseVersion(version)
	if !ok {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if old, known := k.of[res]; known { // else floor reads the rows first
		k.of[res] = max(old, n)
	}
}

func (k *knownVersions) forget(res Resource) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.of, res)
}

// highest returns the highest version of a resource, which load reads from the rows the first time;
// empty: none is known.
func (k *knownVersions) highest(res Resource, load func() ([]string, error)) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	highest, ok := k.of[res]
	if !ok {
		all, err := load()
		if err != nil {
			return "", err
		}
		for _, version := range all {
			n, _ := ParseVersion(version)
			highest = max(highest, n)
		}
		if k.of == nil {
			k.of = map[Resource]uint64{}
		}
		k.of[res] = highest
	}
	if highest == 0 {
		return "", nil
	}
	return strconv.FormatUint(highest, 10), nil
}

// floor returns the highest version of a resource that is known; empty: none.
func (tx *Tx) floor(res Resource) (string, error) {
	highest, err := tx.db.known.highest(res, func() ([]string, error) {
		return collect(scanVersion)(tx.tx.Query(`SELECT resource_version FROM collection WHERE principal = ?1 AND api_group = ?2 AND resource = ?3 AND state = 'complete'
			UNION ALL SELECT o.resource_version FROM collection c JOIN object o ON o.collection_id = c.id WHERE c.principal = ?1 AND c.api_group = ?2 AND c.resource = ?3 AND c.state <> 'complete'
			UNION ALL SELECT version FROM observation WHERE principal = ?1 AND api_group = ?2 AND resource = ?3
			UNION ALL SELECT floor FROM observation WHERE principal = ?1 AND api_group = ?2 AND resource = ?3`, res.Principal, res.Group, res.Resource))
	})
	return highest, tx.wrapErr("find highest version", err)
}

func scanVersion(scan func(...any) error) (version string, err error) {
	err = scan(&version)
	return version, err
}
