// Package manifest changes the pods in a stream of Kubernetes objects, YAML or JSON, and
// preserves everything else as a person has written it.
//
// A stream has documents; a document has one object or a List of them; an object is a pod or has
// a template of pods. Documents without changes stay the same, byte for byte. In a YAML document
// only the lines that change are touched: package yaml says where each node is, and the edits are
// made in the text. JSON keeps its order of keys and its indentation.
//
// The JSON of a document decides what is correct. If the edited text does not give it, as can happen
// with unusual forms of YAML, the document is written again as a whole from the JSON, without
// comments, and the caller is told.
//
// The package does not know which changes are made to pods, or why.
package manifest
