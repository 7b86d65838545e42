// Package upstream is the way to the API server: the addresses under which it may be reached, which of them answer, and
// whether any does, which is the state of the link.
//
//	          request fails,               2nd round of
//	          a round of probes fails      probes fails
//	Online ─────────────▶ Suspect ─────────────▶ Offline
//	  ▲ ◀───────────────────┘                      │ ▲
//	  │      an answer                   an answer ▼ │ no answer
//	  └────────────────────────────────────── Recovering
//	            another answer
//
// How many rounds and answers it takes can be set; the picture shows the defaults. Addresses are tried in the order given, or in
// turn, and those of last resort after the others. A request whose address fails before any response is sent to
// the next one if that cannot do it twice. When an address stops answering, what is under way on it fails
// at once instead of waiting for TCP to give up; when none answers any more, requests fail without being tried.
//
// Nothing is given up for being slow alone. A request that waits asks for a probe, and it is the probe that has a timeout: while
// probes are answered, a LIST may take minutes. What probes cannot see is found by HTTP/2 pings, TCP keep-alive and TCP's user
// timeout: a connection that is dead while others to the same address work.
//
// All of the settings can change while it runs, see Update.
//
// The package knows HTTP, TLS and time. It knows nothing of what requests mean to a cache: it does not look into paths, and
// into bodies only to tell an API server's own 503 from a load balancer's.
package upstream
