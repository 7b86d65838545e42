// Package manifest changes the pods in a stream of Kubernetes objects, YAML or JSON, and
// leaves everything else as a person has written it.
//
// A stream has documents; a document has one object or a List of them; an object is a pod or
// has the template of pods. Documents in which nothing changes stay as they are, byte
// for byte. In the others the changes are made in the tree of the text: comments, the
// order of keys, and fields that nobody here knows survive; blank lines and some
// indentation do not.
//
// What is right is decided by the JSON of a document. The tree is only how it looks: when it
// does not give the same JSON (anchors and merge keys are where it may not), the
// document is written anew from the JSON, without its comments.
//
// It knows nothing of what is changed, or why.
package manifest
