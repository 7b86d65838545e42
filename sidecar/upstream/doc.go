// Package upstream sends requests to the API server. It knows the addresses under which the API
// server may be reached, which of them answer, and whether any does: that is the state of the link.
//
//	          request fails,               2nd round of
//	          a round of probes fails      probes fails
//	Online ─────────────▶ Suspect ─────────────▶ Offline
//	  ▲ ◀───────────────────┘                      │ ▲
//	  │      an answer                   an answer ▼ │ no answer
//	  └────────────────────────────────────── Recovering
//	            another answer
//
// The picture shows the default numbers of rounds and answers; both are settings. Addresses are
// tried in the order given, or in turn, and those of last resort after the others. If an address
// fails before any response, the request goes to the next one, unless it could be executed twice.
// When an address stops answering, its requests fail at once instead of waiting for TCP to give up.
// When no address answers any more, requests fail without being tried.
//
// No request is aborted only because it is slow. A waiting request asks for a probe, and only the
// probe has a timeout: while probes are answered, a LIST may take minutes. HTTP/2 pings, TCP
// keep-alive and TCP's user timeout find what probes cannot see: a connection that is dead while
// others to the same address work.
//
// All settings can change at run time, see Update.
//
// The package knows HTTP, TLS and time. It does not know what requests mean to a cache: it does not
// parse paths, and reads bodies only to tell an API server's own 503 from a load balancer's.
package upstream
