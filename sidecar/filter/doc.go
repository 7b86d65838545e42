// Package filter shows a client of the API server what it should see on this node.
//
//	client ◀── proxy ◀── filter ◀── dispatch ◀── API server, or the cache
//	                       │                ╲
//	                       └ follower ────▶  record: unfiltered
//
// A Filter is an http.RoundTripper around the Dispatcher. What is recorded stays unfiltered, so a
// changed setting applies to what was recorded before. Package rule has the filters, which are pure
// functions over one object. A GET, LIST and WATCH of a resource that a filter touches goes through
// here, see answer.go and watch.go. All other requests pass.
//
// A view is the filters of one client with what they know beside the object. It never changes. What
// a client holds was filtered by one view, which its past remembers (past.go): from list to watch,
// and from watch to watch. When the view of an open watch changes, the objects concerned are read
// again, and the watch sends the difference (correct.go). The client of a watch whose past nobody
// remembers is sent to list again.
//
// A follower reads Services and Nodes for the clients of one principal while they watch, through the
// Dispatcher, so that it works offline (follower.go).
package filter
