// Package model tests what the cache answers offline against a reference model of an API server.
//
//	history ─▶ server     revisions; what it answers, and which revision that tells about
//	           programs   requests, watches, requests under way; what each was told
//	           cache      the real one: records the answers
//	             │
//	             ▼ the link is cut
//	           judge      each answer of the cache against server and told
//
// A history is a random sequence of operations, made from a seed. The model knows in which order
// everything happened, because it numbers the states of the server: its revisions. The sidecar
// does not know them. It has the server's versions, which repeat in a restored cluster and may be
// no numbers, and the order of its requests. An answer breaks the contract if
//
//   - an object, or its absence, is no state that it had at the newest revision about which the
//     program was told, or later (told.go has the exceptions)
//   - a list is not the whole of one revision at its version, or is older than what the program
//     was told about one of its objects
//   - a 404 is about an object of which the program was never told anything
//   - a scope is answered that the server has refused since
//   - nothing went wrong and the cache does not know what it was told. Everywhere else 503 is right.
//
// A history that fails is shrunk, and printed with its seed in words.
package model
