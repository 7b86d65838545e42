// Package store keeps what was read from the Kubernetes API in an SQLite file.
//
// It knows rows and nothing of HTTP: collections of objects, tombstones, whole responses,
// facts, the history of the link, and writes that wait for it. Its promise is that a complete collection is,
// at any instant and after any crash, exactly the set of objects that the server
// had at the collection's resourceVersion.
//
//	record ──Update(func(*Tx))──▶ one writing connection ──▶ rockpool.db (WAL)
//	replay ◀──List, Object, …──── a few reading connections ◀──┘
//
// What a crash, a full disk or a damaged file does to that promise: a crash leaves the
// last commits out, never half of one. A file that is damaged is an error, and is
// replaced by an empty one (Recreate). SQLite notices what breaks its structure, and a
// checksum what breaks an object's payload; objects are nearly all of most files. Of a
// whole response only the size is checked. A bit that a card flips inside one, or inside
// a name, a version or a label, is not noticed: checksums of pages would take a file
// system of our own below SQLite. A new list or answer repairs it, because what the
// server sends is compared with what is there.
//
// Writing and reading have types of their own: only a Tx can change rows, and
// the connections behind DB's own methods are query_only.
package store
