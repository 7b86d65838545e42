// Package store keeps what was read from the Kubernetes API in an SQLite file.
//
// It knows rows and nothing of HTTP: collections of objects, tombstones, whole responses,
// facts, the history of the link. Its promise is that a complete collection is,
// at any instant and after any crash, exactly the set of objects that the server
// had at the collection's resourceVersion.
//
//	record ──Update(func(*Tx))──▶ one writing connection ──▶ rockpool.db (WAL)
//	replay ◀──List, Object, …──── a few reading connections ◀──┘
//
// Writing and reading have types of their own: only a Tx can change rows, and
// the connections behind DB's own methods are query_only.
package store
