// Package lease lets a client that holds a leader's lock go on renewing it while the link is down,
// so that what it leads goes on at the edge. The lock is a Lease (KEP-589), or stands in the
// annotations of a ConfigMap or an Endpoints object, as older libraries and Patroni have it.
//
// Online it only looks on: who writes its name into which lock, and when. Offline it
// answers GET, PUT and PATCH of a lock that was held at that time from memory, as long as
// it is renewed before it expires. The resourceVersion stays the server's last one: when
// the link is back, the next renewal goes to the server, which takes it if nobody else has
// written the object meanwhile, and answers 409 Conflict if somebody has.
//
// A lock is never acquired here, and never taken from another holder. A hold is known from
// what this process has seen: after a restart of the sidecar without a link it is not
// proven, and ends. A write that changes more of a ConfigMap or an Endpoints object than the
// annotations of leader election is no renewal.
//
// The server knows nothing of all this. To it the lock expires, and a candidate elsewhere
// will take it: two leaders are the price, which is why this is off unless asked for.
package lease
