// Package replay answers requests from the store, as the API server would have
// answered them when the rows were recorded.
//
//	GET    ─▶ the newest that is known of the object ─▶ 200, 404 with proof, or ErrNotRecorded
//	LIST   ─▶ a complete collection that covers it   ─▶ 200, streamed page by page
//	WATCH  ─▶ the same as initial events             ─▶ State
//	review ─▶ the answer to the same question, while it is young ─▶ 201
//	other  ─▶ the answer to the identical request    ─▶ 200 or 304
//
// The newest that is known answers, in whatever form it was recorded: what the client
// does not take as it is goes through package convert.
//
// It never concludes absence from what happens not to be there: a list without an
// object needs a collection that was recorded whole, and a 404 such a list, or the
// server's own word for this very object, newer than what else is known of it. It does not know
// whether the link is up; the caller decides when to ask.
package replay
