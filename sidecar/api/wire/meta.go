package wire

// InitialEventsEnd is the annotation of the bookmark that ends the initial events of a watch with
// sendInitialEvents=true (KEP-3157).
const InitialEventsEnd = "k8s.io/initial-events-end"

// Meta is the part of an object that identifies it.
type Meta struct {
	Kind, APIVersion string
	Namespace, Name  string
	UID              string
	ResourceVersion  string
	// Labels is the JSON object of the labels, or nil. It may share memory with the input.
	Labels []byte
	// InitialEventsEnd means that the annotation of that name is "true".
	InitialEventsEnd bool
}
