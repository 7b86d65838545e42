package store

import "slices"

// mayBeUnlisted reports whether an answer that may lag, or an event, shows an object that a later
// list may lack, which is recorded verbatim only. Of the objects that such a list has, there is
// something recorded.
func (tx *Tx) mayBeUnlisted(s Scope, key Key, e Evidence, rows []row) (is bool, err error) {
	if e.Read == Latest || len(rows) > 0 {
		return false, nil
	}
	if _, found, err := tx.observation(s.Of(), key); found || err != nil {
		return false, err
	}
	return tx.hasNewerList(s, key.Namespace, e.Version)
}

// isUnlistedEvent is mayBeUnlisted for an event.
func (tx *Tx) isUnlistedEvent(s Scope, key Key, e Evidence) (bool, error) {
	if later, err := tx.hasLaterVerbatim(s.Of(), e.Version); !later || err != nil {
		return false, err
	}
	rows, err := tx.allRows(s.Of(), key)
	if err != nil {
		return false, err
	}
	return tx.mayBeUnlisted(s, key, e, rows)
}

// hasNewerList reports whether a list of an object's namespace or of all, without a selector, is
// recorded verbatim at a later version.
func (tx *Tx) hasNewerList(s Scope, namespace, version string) (bool, error) {
	if later, err := tx.hasLaterVerbatim(s.Of(), version); !later || err != nil {
		return false, err
	}
	s.Namespace = namespace
	one := s.Path()
	s.Namespace = ""
	versions, err := collect(scanVersion)(tx.tx.Query(`SELECT version FROM response WHERE principal = ?1 AND status = 200 AND path NOT LIKE '%elector=%'
		AND (path IN (?2, ?3) OR path >= ?2 || '?' AND path < ?2 || '@' OR path >= ?3 || '?' AND path < ?3 || '@')`, s.Principal, s.Path(), one))
	return slices.ContainsFunc(versions, func(v string) bool { return NewerVersion(v, version) }), tx.wrapErr("find newer list", err)
}

// hasLaterVerbatim reports whether any list of a resource may be recorded verbatim at a later
// version. Nearly always there is none, which costs no query.
func (tx *Tx) hasLaterVerbatim(res Resource, version string) (bool, error) {
	prefix := "/api/"
	if res.Group != "" {
		prefix = "/apis/" + res.Group + "/"
	}
	highest, err := tx.db.verbatim.highest(res, func() ([]string, error) {
		return collect(scanVersion)(tx.tx.Query(`SELECT version FROM response WHERE principal = ?1 AND status = 200 AND version <> ''
			AND path LIKE ?2 || '%/' || ?3 || '%'`, res.Principal, prefix, res.Resource))
	})
	return NewerVersion(highest, version), tx.wrapErr("find newest list", err)
}

// unlisted returns the objects of fill that a later list may lack, as in mayBeUnlisted, but not
// many more than maxGivenUp.
func (s *Snapshot) unlisted(tx *Tx, version string) ([]Key, error) {
	if s.fill == 0 || s.when.Read == Latest {
		return nil, nil
	}
	res := s.scope.Of()
	if later, err := tx.hasLaterVerbatim(res, version); !later || err != nil {
		return nil, err
	}
	keys, err := collect(func(scan func(...any) error) (k Key, err error) {
		err = scan(&k.Namespace, &k.Name)
		return k, err
	})(tx.tx.Query(`SELECT namespace, name FROM object f WHERE collection_id = ?1
			AND NOT EXISTS (SELECT 1 FROM object o JOIN collection c ON c.id = o.collection_id
				WHERE o.namespace = f.namespace AND o.name = f.name AND c.principal = ?2 AND c.api_group = ?3 AND c.resource = ?4 AND c.state <> 'filling')
			AND NOT EXISTS (SELECT 1 FROM observation t
				WHERE t.principal = ?2 AND t.api_group = ?3 AND t.resource = ?4 AND t.namespace = f.namespace AND t.name = f.name) LIMIT ?5`,
		s.fill, res.Principal, res.Group, res.Resource, maxGivenUp+1))
	if err != nil {
		return nil, tx.wrapErr("find unlisted objects", err)
	}
	var out []Key
	for _, key := range keys {
		newer, err := tx.hasNewerList(s.scope, key.Namespace, version)
		if err != nil {
			return nil, err
		}
		if newer {
			out = append(out, key)
		}
	}
	return out, nil
}

// doubtUnlisted records that nothing counts of objects that a later list may lack. If there are too
// many, that is so of all.
func (s *Snapshot) doubtUnlisted(tx *Tx, keys []Key, version string) error {
	if len(keys) > maxGivenUp {
		keys = []Key{{Namespace: s.scope.Namespace}}
	}
	list := s.when
	list.Version = version
	for _, key := range keys {
		if err := tx.Observe(s.scope.Of(), key, doubtOf(list, list)); err != nil {
			return err
		}
	}
	return nil
}
