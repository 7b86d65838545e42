// Package outage keeps what happens while the link is down: since when and why, how many requests the
// cache has answered and how old the oldest answer was, and how many were refused. It writes the lines
// of the log that no other package can write, because they are about all requests together:
//
//	answering from the cache      the first answer of an outage, with its age
//	caught up after an outage     once all watches are back, with the counts
//
// The other lines of an outage come from upstream (link state changed), from the access log (the first
// refusal of each kind, and counts) and from write/outbox (queued Events are delivered).
package outage
