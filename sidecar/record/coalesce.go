package record

import "rockpool.dev/store"

// Coalescing: of the events of one object that one watch has in the queue, only
// the last one keeps its object. The others are superseded: they stay in their
// places as steps from one version to the next, without a payload.
//
//	queue of a watch      ADDED a@11   MODIFIED b@12   MODIFIED a@13
//	becomes               step 10→11   MODIFIED b@12   MODIFIED a@13
//
// A hot object then costs one write a group, however often it changes, and a slow
// disk costs the memory of the objects that changed, not of all their changes.
//
// Why a complete collection still equals the server's state at its version at
// every commit: a step moves the collection's version on and leaves the object
// behind, so between the step and the event that supersedes it the rows are
// wrong. That must never be committed. Therefore:
//
//   - A group that takes a step goes on until it has taken what supersedes it
//     (take). That one is in the queue: it is the last event of its object that
//     the watch has had, and only an event that was not taken yet is superseded.
//   - What supersedes is never refused behind its step as a gap: the watch's
//     events between the two are all in the queue, so each one begins where the
//     one before it ended. An event that found no room tears this chain. Events
//     behind the hole supersede none before it (enqueueEvent forgets them).
//   - It may be known already, brought by another watch of the scope. Then that
//     watch's events have moved the collection past it, and by the same rules the
//     object is at its last version there when the group ends.
//   - A snapshot that is committed in between makes the rows equal to its list,
//     whatever they were; events go on from there or are gaps.
//   - When a group fails as a whole, steps and what supersedes them are lost
//     together. When it is written one by one, steps are lost (writeOneByOne): what
//     comes behind them in their watch is then a gap, and the collection is listed
//     again.
//
// Only events of the same watch supersede each other. Two watches of one scope may
// be apart by any distance, so the one's event says nothing about the place of
// the other's in the queue.

// stepOverhead is what a superseded event costs in memory.
const stepOverhead = 192

// enqueueEvent adds an event and supersedes the one of the same object that waits.
func (r *Recorder) enqueueEvent(e *event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	waiting := e.stream.waiting
	old := waiting[e.key]
	freed := 0
	if old != nil {
		freed = old.size() - stepOverhead
	}
	if !r.admit(e.size()-freed, r.max) {
		clear(waiting)
		return
	}
	if old != nil {
		old.superseded, old.object = true, nil
		r.pending -= freed
		e.supersedes = true
	}
	if e.key != (store.Key{}) { // a bookmark has none
		waiting[e.key] = e
	}
	r.push(e)
}

// dequeued is called when the event leaves the queue. It gives how many more events
// than before it must leave with it.
func (e *event) dequeued() (deferred int) {
	if e.stream.waiting[e.key] == e {
		delete(e.stream.waiting, e.key)
	}
	if e.superseded {
		deferred++
	}
	if e.supersedes {
		deferred--
	}
	return deferred
}

// deferredWrite is an object whose row is behind its collection's version until the event
// that supersedes the step is applied.
type deferredWrite struct {
	collection int64
	key        store.Key
}

// enqueueDifference adds a difference. No event behind it supersedes one before it: they
// would have to be committed together with it.
func (r *Recorder) enqueueDifference(d *difference) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(d.stream.waiting)
	if r.admit(d.size(), r.max) {
		r.push(d)
	}
}
