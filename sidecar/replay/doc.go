// Package replay answers requests from the store, as the API server would have
// answered them when the rows were recorded.
//
//	GET    ─▶ the newest that is known of the object ─▶ 200, 404 with proof, or ErrNotRecorded
//	LIST   ─▶ a complete collection that covers it   ─▶ 200, streamed page by page
//	WATCH  ─▶ the same as initial events             ─▶ State
//	other  ─▶ the answer to the identical request    ─▶ 200 or 304
//
// The newest that is known answers, in whatever form it was recorded: what the client
// does not take as it is goes through package convert.
//
// It never concludes absence from what happens not to be there: 404, or a list
// without an object, needs a collection that was recorded whole. It does not know
// whether the link is up; the caller decides when to ask.
package replay
