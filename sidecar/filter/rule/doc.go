// Package rule has the response filters as pure functions over one object.
//
//	(object, context) ──▶ Chain.Apply ──▶ (object, keep)
//
// The object is a slice of an answer in JSON or protobuf. A filter changes only the bytes of the
// fields concerned, so that fields that no library knows survive. The context is what is known
// beside the object: of the node, of Services, and the settings. It never changes; whoever learns
// something makes another one.
package rule
