// Package live answers reads from the cache while the link is up, without an older answer than the
// API server's. A restarted program then costs the link what has changed, not the whole list.
//
//	read ─▶ Decide ─┬─▶ pass: the API server answers
//	                ├─▶ checked: a list of one item, with the caller's token ──▶ cache
//	                └─▶ proven: the same; and a watch reaches its revision   ──▶ cache
//
// It is what the API server does for its own cache (KEP-2340, consistent reads from cache): it learns
// the present revision, waits until its cache has reached that, and answers from there. The list of
// one item is a consistent read that shows the present revision, and proves that this caller may
// list. A watch that goes on from the recorded version brings what has changed since, and a bookmark
// that says which revision it has reached.
//
// A collection with such a watch is live. decide.go says which read is answered how, read.go
// answers it, and prove.go asks the API server, in one.go for the list of one item. collections.go
// has the live collections, join.go who waits for them, and follow.go what they do; history.go
// finds out whether an old one is of the API server's present history. pace.go says what lists and
// proofs take, by what timed.go measures, and kept.go keeps that for the next start. disk.go waits for
// no disk that hangs. Whatever is doubtful is an error, and the API server is to answer.
package live
