// Package convert converts a recorded object from one form into another, as the API server would
// have returned it.
//
//	object   ──wire──▶ PartialObjectMetadata       any kind, without decoding
//	JSON     ◀─schema─▶ protobuf                   kinds of k8s.io/api, and PartialObjectMetadata
//	JSON     ◀────────▶ YAML, CBOR                 any kind, as a whole
//
// Metadata cannot be converted back to an object. Kinds outside k8s.io/api (custom resources, kinds
// of aggregated servers, CustomResourceDefinitions) cannot be converted to protobuf.
//
// A response in the form in which it was recorded needs no conversion. Between JSON and protobuf
// only the fields of the schema survive: those of the k8s.io/api that this program was built with.
// Fields of a newer server are lost.
//
// The schema is a table of names and numbers, schema.txt. The tests generate it from the Go types
// of k8s.io/api and compare it with them. The types themselves would take 12 MiB more memory in
// every pod, mapped from the program's file, while most pods never need a conversion. The table
// takes 0.2 MiB, and less than 1 MiB of heap after its first use.
package convert
