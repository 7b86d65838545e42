package record

import "rockpool.dev/store"

// Coalescing: a watch may have several events of one object in the queue. Only the last of them
// keeps the object. The others are superseded: they keep their places in the queue, as steps from
// one version to the next without a payload.
//
//	queue of a watch      ADDED a@11   MODIFIED b@12   MODIFIED a@13
//	becomes               step 10→11   MODIFIED b@12   MODIFIED a@13
//
// An object that changes often then costs one write per group. A slow disk costs the memory of the
// objects that changed, not of all their changes.
//
// A step moves the collection's version on but leaves the object's old row. Between the step and
// the event that supersedes it the rows are wrong, and must not be committed. At every commit a
// complete collection still equals the server's state at its version, because:
//
//   - A group that takes a step also takes the superseding event (see take). That event is in the
//     queue: it is the watch's last event of the object, and only queued events are superseded.
//   - A superseding event is never a gap after its step. All events of the watch between the two
//     are in the queue, and each begins where the one before it ended. An event that does not fit
//     into the queue breaks this chain. Later events then supersede none before the break, because
//     enqueueEvent forgets those.
//   - A superseding event may be a duplicate of one from another watch of the scope. Then that
//     watch has moved the collection past it. By the same rules the object's row is correct there
//     when the group ends.
//   - A snapshot committed in between makes the rows equal to its list. Later events continue from
//     there or are gaps.
//   - When a whole group fails, steps and superseding events are lost together. When it is written
//     one by one (see writeOneByOne), the steps are lost. The watch's next events are then gaps,
//     and the collection is relisted.
//
// Only events of the same watch supersede each other. Two watches of one scope may be any distance
// apart, so an event of one says nothing about the queued events of the other.

// stepOverhead is the memory that a superseded event takes, in bytes.
const stepOverhead = 192

// enqueueEvent adds an event, which supersedes the queued event of the same object.
func (r *Recorder) enqueueEvent(e *event) {
	if r.addEvent(e) {
		return
	}
	e.lost()
	// The next event is behind a gap. Under a budget that would show only when it is written, hours
	// later, and the list that is to close the gap needs the link.
	if r.pace.PerDay > 0 {
		e.stream.conclude(gap)
	}
}

func (r *Recorder) addEvent(e *event) bool {
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
		return false
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
	return true
}

// dequeued ends the time in which the event may be superseded.
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

// deferredWrite is an object whose row is older than its collection's version, until the event that
// supersedes the step is applied.
type deferredWrite struct {
	collection int64
	key        store.Key
}

// enqueueDifference adds a difference. Events after it supersede none before it: those would have
// to be committed together with it.
func (r *Recorder) enqueueDifference(d *difference) {
	r.mu.Lock()
	clear(d.stream.waiting)
	ok := r.admit(d.size(), r.max)
	if ok {
		r.push(d)
	}
	r.mu.Unlock()
	if !ok {
		d.lost()
	}
}
