// Package dispatch decides, for each request, which way it goes: to the API server,
// with the recorder listening, or to the cache.
//
//	            ┌─ link up ──▶ upstream ──▶ answer, recorded on its way back
//	request ──▶ ┤
//	            └─ link down ▶ prove who asks ──▶ replay ──▶ answer, 404 with proof, or 503
//	                                         └──▶ outbox, lease: the writes that are accepted
//
// Of a document that is recorded upstream is only asked whether it has changed, see
// revalidate.go; a POST that only asks is recorded as an answer, see review.go.
//
// A watch is one loop over both: serve the initial state if asked for, stream
// from upstream, and when the link breaks wait and go on behind the last version
// that the client has seen. See watch.go and resume.go; and difference.go for when the
// server has forgotten that version.
package dispatch
