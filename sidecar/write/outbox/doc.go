// Package outbox accepts Events while the link is down and delivers them when it is back.
//
//	POST, PATCH ──Accept──▶ index in memory + store (synced to the disk)
//	                              │
//	API server ◀──Run, in order───┘
//
// What was accepted is delivered once, as far as the API allows: each Event has its name
// when it is accepted, so that sending it again gives 409 AlreadyExists and not a second
// one. A PATCH changes what is queued. It is kept beside it as well, for the case that the
// server has the Event already, because a first attempt did arrive or because it was there
// before the link broke; that is what client-go's recorders do, only the other way round.
//
// Each principal's Events go in order and with its own token, none of which is kept here.
// The queue is bounded in number and age; the oldest go first.
package outbox
