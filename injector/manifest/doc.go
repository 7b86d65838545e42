// Package manifest changes the pods in a stream of Kubernetes objects, YAML or JSON, and
// preserves everything else as a person has written it.
//
// A stream has documents; a document has one object or a List of them; an object is a pod or has
// a template of pods. Documents without changes stay the same, byte for byte. In other documents
// the changes are made in the tree of the text. Comments, the order of keys and unknown fields
// survive; blank lines and some indentation do not.
//
// The JSON of a document decides what is correct; the tree only preserves the look. If the
// changed tree does not give the same JSON, as can happen with anchors and merge keys, the
// document is written from the JSON, without comments.
//
// The package does not know which changes are made to pods, or why.
package manifest
