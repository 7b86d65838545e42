// Package store is the cache of the Kubernetes API in one SQLite file.
//
// It knows rows and nothing of HTTP. Its promise: at any instant and after any crash, a
// complete collection is exactly the set of objects that the server had at the
// collection's resourceVersion.
//
//	record ──Update(func(*Tx))──▶ one writing connection ──▶ rockpool.db (WAL)
//	replay ◀──List, Object, …──── a few reading connections ◀──┘
//
// Writing and reading have types of their own: an Update changes rows through a Tx, and
// the connections behind DB's reading methods are query_only.
//
// The tables, and the files with their statements (schema.sql has all columns and views):
//
//	collection  collection.go  one LIST/WATCH scope, or the singles: objects that were told alone
//	object      object.go      the objects of collections
//	observation observation.go evidence about objects that were not shown
//	response    response.go    complete responses, for the identical request
//	fact        fact.go        facts about the cluster; and what the link carries, rate.go
//	link        link.go        the history of the link
//	outbox      outbox.go      accepted writes that wait for the link
//	meta        owner.go       the owner of the cache
//
//	snapshot.go makes a list the complete collection of its scope
//	rebase.go   takes account of what has become of the collection meanwhile
//	lookahead.go finds the rows of the objects that the list before had, too
//	giveup.go   keeps what a list has told that does not come in as a whole
//	unfinished.go gives up the lists of a process that was killed
//	outline.go  has hashes of the last list, so that the next one need not be compared with its rows
//	checkpoint.go keeps the log from being merged into the file while a list comes in
//	evict.go    deletes least recently used rows, and shrinks the file
//	forget.go   deletes a collection, so that nothing older takes its place
//	evidence.go says which of two answers of the server is newer, for rows and observations alike
//	combine.go  says what is known by two answers of which either may be newer
//	settle.go   deletes what newer evidence supersedes
//	inventory.go lists and verifies what is there, for a person
//	versions.go has the highest version of each resource that is known
//	unlisted.go finds objects that a later list may lack, which is recorded only as a whole
//	known.go    reads all that is known of an object
//	overtaken.go says whether anything newer is known than a list has
//	verbatim.go says whether a list that is recorded only as a whole still holds
//
// The file itself: open.go opens or creates it, db.go holds it open, tx.go has its
// transactions, recreate.go replaces a lost or corrupt one, carryover.go has the rows that
// survive that, seed.go copies the file of another pod, adopt.go takes queued writes out of one
// that nobody uses, attach.go reads and vacuums one that another process uses, errors.go has the
// kinds of errors.
//
// A crash loses the last commits, never half of one. A transaction on a full disk fails
// as a whole. A damaged file gives ErrCorrupt, and Recreate replaces it with an empty one.
// SQLite detects damage to the structure of the file. A checksum detects damage to an object's
// payload, which costs its collection alone (ErrDamaged); payloads are nearly all of most files.
// Of a response only the size is checked. A bit that a flash card flips inside a response, a name,
// a version or a label stays undetected: checksums of pages would need a file system of our own
// below SQLite.
// A new list or response repairs it, because the recorder compares it with the rows; a list that
// follows another within an hour is compared with what is in memory of that one (outline.go).
package store
