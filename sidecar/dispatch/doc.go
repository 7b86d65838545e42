// Package dispatch decides who answers a request: the API server, while its answer is recorded,
// or the cache.
//
//	            ┌─ link up ──▶ upstream ──▶ answer, recorded on its way back
//	request ──▶ ┤
//	            └─ link down ▶ authenticate ──▶ cache ──▶ answer, 404 with proof, or 503
//	                                        └──▶ acceptor: the writes that are accepted offline
//
// The door decides once what the request is, see exchange.go; RoundTrip reads from there. Of a
// recorded document only the ETag is compared with the API server, see revalidate.go. A POST
// that only asks is recorded under a sealed key, see seal.go. A watch goes on in package watch.
// A page of a gateway passes to the client, and nothing is learned from it, see package origin.
package dispatch
