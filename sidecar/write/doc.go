// Package write reads what clients write, as far as that can be answered without the
// API server: whole objects in JSON or protobuf, and merge patches; and it gives an object
// as the answer, in the form that the client takes.
//
// It is for the kinds of writes that are accepted while the link is down (see packages
// outbox and lease). It does not validate like the API server, which does so when it gets
// them.
package write
