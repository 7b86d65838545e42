// Package upstream sends requests to the API server. It knows the addresses under which the API
// server may be reached, which of them answer, and whether any does: that is the state of the link.
//
// Three facts are kept apart:
//
//   - reachable: a byte came over a connection whose handshake was verified, or a dial has failed
//   - ready: what /readyz said, which only chooses among several addresses
//   - what a request got, which is that request's own affair
//
// Only the first one decides about the link:
//
//	bytes of any response, ─────▶ Evidence ─── Verdict ──▶ Up ──────┐
//	answers to PINGs,             of one                  Unknown ──┼── judge ──▶ online
//	dials                         address                 Down ─────┘             suspect
//	                                                                              offline
//
//	a request or the read of a ─▶ Silence ──── next ─────▶ nothing, PING, dial, close
//	body waits; a PING has        of one
//	no answer                     connection
//
// Verdict, next and judge are pure functions of the evidence and the time (verdict.go). The link is
// online while one address is up: it was reached, and no later dial has failed. The link is offline
// when all addresses are down: no connection is open, the latest dial failed, and no byte came
// within the patience. Requests then fail without being tried. In between the link is suspect, for
// example while a watch goes on after a GOAWAY and no new connection can be made.
//
// A request that waits in silence has a PING sent. The connection ends when not even the PING is
// answered within the patience, which follows the measured round trip. While bytes come, however
// slowly, a request waits as it would without a sidecar. A segment that only the kernel sees, such
// as an acknowledgement, counts too.
//
// These things are never done:
//
//   - A connection does not end for the silence of another one, for /readyz, or for a status.
//   - An answer to a request, or its client's leaving, does not change the state.
//   - Without streams and waiting requests nothing is sent. With streams only, a PING is sent after
//     the keepalive interval.
//   - The address of last resort is not dialed while another one answers requests.
//   - A request that the API server may have executed is not sent again, unless its method is safe.
//
// An address has one dial at a time. While it is down it is tried again after a random part of a
// wait that doubles from one second up to a setting, and then at that interval. Requests (Wake) and
// changes of the node's routes shorten that to two seconds.
//
// HTTP/1.1 has no PING. A request that waits in silence has a new connection made instead. If that
// fails, connections on which requests wait are closed, and idle ones too. A quiet watch ends when
// the kernel's keep-alive probes find no answer, after about a minute.
//
// GETs of one object may go over a few HTTP/1.1 connections of their own, beside HTTP/2 and only
// where the API server is near (shortpool.go). Their bytes are evidence as all others are. When one
// of them is silent, the HTTP/2 connection is asked; and what one of them cannot carry, the other
// does.
//
// All settings can change at run time, see Update.
//
// The package knows HTTP, TLS and time. It does not know what requests mean to a cache: it does not
// parse paths, and reads bodies only to keep those of requests, and to tell an API server's own 503
// from a load balancer's.
package upstream
