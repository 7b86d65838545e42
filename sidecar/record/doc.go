// Package record turns answers on their way to the application into rows of the
// store, off the request path.
//
//	body ──▶ application
//	  │ tee
//	  ▼
//	List / Watch / Object / Document / Written …   cut the bytes (wire), in the reader's goroutine
//	  │ operations, bounded in bytes; never waits
//	  ▼
//	Run                                groups them into transactions
//	  ▼
//	store
//
// What cannot be cut into objects is kept whole, for the identical request. That
// shows in the answer, not in the request: a client that would take a Table may get
// a list.
//
// When the store is slower than the network the operations that do not fit are
// dropped: a list is then given up and the old snapshot stays; a watch that lost
// an event is found out by the hole between its versions and leaves its
// collection where it was. The application notices neither. Of the events of one
// object that wait only the last keeps its payload (coalesce.go); a cache file that
// is lost is begun anew (health.go).
package record
