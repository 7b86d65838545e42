package store

// Forget deletes a complete collection. What its client was told by it stays a fact: nothing older
// of the scope counts any more. Collections at its version are not older, unless they contradict it:
// then the cluster was restored from a backup, and its versions say nothing.
func (tx *Tx) Forget(c Collection) error {
	contradicted, err := tx.contradicted(c)
	if err != nil {
		return err
	}
	if err := tx.dropCollection(c.ID); err != nil {
		return err
	}
	e := c.Position()
	if e.Says, e.Version = Unknown, c.UnchangedSince(); contradicted {
		e.Version = ""
	}
	return tx.Observe(c.Of(), Key{Namespace: c.Namespace}, e)
}

// contradicted reports whether another collection at the version of a complete one has another state
// of one of its objects, or lacks one that it ought to have, or the other way round.
func (tx *Tx) contradicted(c Collection) (is bool, err error) {
	// sees is whether a collection would have an object, as far as its labels do not matter.
	sees := func(collection, object string) string {
		return collection + `.namespace IN ('', ` + object + `.namespace) AND ` + collection + `.label_selector = '' AND ` +
			collection + `.field_selector IN ('', 'metadata.name=' || ` + object + `.name)`
	}
	err = tx.tx.QueryRow(`SELECT EXISTS (SELECT 1 FROM collection a JOIN collection b ON b.principal = a.principal AND b.api_group = a.api_group AND b.resource = a.resource
			AND b.state = 'complete' AND b.resource_version = ? AND b.id <> a.id WHERE a.id = ? AND (
		EXISTS (SELECT 1 FROM object x JOIN object y ON y.collection_id = b.id AND y.namespace = x.namespace AND y.name = x.name
			WHERE x.collection_id = a.id AND (y.uid <> x.uid OR y.resource_version <> x.resource_version))
		OR EXISTS (SELECT 1 FROM object x WHERE x.collection_id = a.id AND `+sees("b", "x")+`
			AND NOT EXISTS (SELECT 1 FROM object y WHERE y.collection_id = b.id AND y.namespace = x.namespace AND y.name = x.name))
		OR EXISTS (SELECT 1 FROM object y WHERE y.collection_id = b.id AND `+sees("a", "y")+`
			AND NOT EXISTS (SELECT 1 FROM object x WHERE x.collection_id = a.id AND x.namespace = y.namespace AND x.name = y.name))))`, c.UnchangedSince(), c.ID).Scan(&is)
	return is, tx.wrapErr("compare collections", err)
}

// DropDamaged deletes a collection with a damaged payload. What its client was told by it stays a
// fact. It returns ErrNotFound if the collection is gone.
func (tx *Tx) DropDamaged(id int64) (c Collection, err error) {
	c, err = scanCollection(tx.tx.QueryRow(`SELECT `+collectionColumns+` FROM collection WHERE id = ?`, id).Scan)
	if err != nil {
		return c, tx.wrapErr("find collection", err)
	}
	if c.State == Complete {
		return c, tx.Forget(c)
	}
	if err := tx.dropCollection(id); err != nil {
		return c, err
	}
	now := tx.db.next.Load()
	return c, tx.Observe(c.Of(), Key{}, Evidence{Says: Unknown, Asked: now, Told: now, Read: Latest})
}
