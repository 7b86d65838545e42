// Package record turns responses on their way to the application into rows of the store. It works
// off the request path: the application never waits for it.
//
// The package has two halves. One listens to responses, in the goroutine that reads the body; the
// other keeps a journal, in the goroutine of Run:
//
//	body ──▶ application
//	  │
//	  ▼ listen
//	answer.go                which response is recorded how
//	tee.go                   copies a body to a sink, one of:
//	  body.go                  the whole body, up to a size
//	  list.go, pages.go        a LIST, split into items, over all its pages
//	document.go              a response that is recorded verbatim
//	watch.go                 the events of a watch
//	mutation.go              what a write changes or a 404 proves
//	source.go, row.go        the request; single objects, and the rows of objects
//	  │
//	  │ operations, bounded in bytes; never waits
//	  ▼ journal
//	queue.go, operation.go   what waits for the store
//	coalesce.go              events that supersede queued ones
//	write.go, group.go       one transaction for many operations
//	snapshot.go, commit.go   how lists change a collection
//	event.go                 how events change it
//	version.go               resourceVersions, and whether an event is the next one
//	health.go, quota.go      a full, broken or lost cache file
//	stale.go, openwatches.go what to relist; what is watched
//	  │
//	  ▼
//	store
//
// A response that cannot be split into objects is recorded verbatim, for the identical request.
// Only the response shows that, not the request: a client that accepts a Table may get a list.
//
// When the store is slower than the network, operations that do not fit into the queue are dropped.
// A list that lost an item is given up, and the old snapshot stays. A watch that lost an event has
// a gap between its versions; its collection stays where it was. The application notices neither.
package record
