// Package lease lets a client that holds a Lease go on renewing it while the link is down,
// so that what it leads goes on at the edge (KEP-589).
//
// Online it only looks on: who writes its name into which Lease, and when. Offline it
// answers GET, PUT and PATCH of a Lease that was held at that time from memory, as long as
// it is renewed before it expires. The resourceVersion stays the server's last one: when
// the link is back, the next renewal goes to the server, which takes it if nobody else has
// written the Lease meanwhile, and answers 409 Conflict if somebody has.
//
// A Lease is never acquired here, and never taken from another holder. A hold is known from
// what this process has seen: after a restart of the sidecar without a link it is not
// proven, and ends.
//
// The server knows nothing of all this. To it the Lease expires, and a candidate elsewhere
// will take it: two leaders are the price, which is why this is off unless asked for.
package lease
