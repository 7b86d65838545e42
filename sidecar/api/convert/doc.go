// Package convert turns a recorded object from one form into another, as the API
// server would have given it.
//
//	object   ──wire──▶ PartialObjectMetadata       any kind, nothing is decoded
//	JSON     ◀─schema─▶ protobuf                   kinds of k8s.io/api, and PartialObjectMetadata
//
// Metadata does not become an object again, and what is not in k8s.io/api (custom
// resources, kinds of aggregated servers, CustomResourceDefinitions) has no
// protobuf here.
//
// Answers in the form in which they were recorded never come here. Between JSON
// and protobuf only fields survive that the schema knows: those of the k8s.io/api
// that this program was built with. Fields that a newer server has are lost.
//
// The schema is a table of names and numbers, schema.txt, which is written from the
// Go types of k8s.io/api and proven against them by the tests. The types themselves
// would take 12 MiB more of memory in every pod, mapped from the program's file,
// while most pods never have anything converted; the table takes 0.2 MiB, and less
// than 1 MiB of heap once it was needed.
package convert
