// Package replay answers requests from the store, as the API server would have answered them when
// the rows were recorded.
//
//	GET    ─▶ the newest recorded state of the object       ─▶ 200, 404, or ErrNotRecorded
//	LIST   ─▶ a complete collection that covers it          ─▶ 200, streamed page by page
//	WATCH  ─▶ the same, as initial events                   ─▶ State
//	review ─▶ the response to the same review, if not old   ─▶ 201
//	other  ─▶ the response to the identical request         ─▶ 200 or 304
//
// The newest recorded state answers, in whatever form it was recorded. Package convert turns it
// into a form that the client accepts.
//
// Absence needs proof. A list without an object must be recorded completely. A 404 needs such a
// list, or the API server's own 404 or DELETE for this very object, and nothing newer that is
// recorded of it. The package does not know whether the link is up: the caller decides when to ask.
package replay
