package store

// maxLinkHistory bounds the recorded changes of the link.
const maxLinkHistory = 1000

// PutLink adds a change of the link's state to its history.
func (tx *Tx) PutLink(state, reason string) error {
	res, err := tx.tx.Exec(`INSERT INTO link (at, state, reason) VALUES (?, ?, ?)`, tx.nowMilli(), state, reason)
	if err != nil {
		return tx.wrapErr("put link state", err)
	}
	id, err := res.LastInsertId()
	if err != nil {
		return tx.wrapErr("put link state", err)
	}
	_, err = tx.tx.Exec(`DELETE FROM link WHERE id <= ?`, id-maxLinkHistory)
	return tx.wrapErr("put link state", err)
}
