package record

import "rockpool.dev/sidecar/api/request"

// Stale is a collection that has lost touch with the server: an event or an item
// of it was not recorded, and what comes next does not fit behind what is there. It
// stays true for its version; only a new list brings it up to date. Or there is none:
// it is watched and was lost, with the cache's file or because its versions
// contradicted each other, or a client reads on behind a state that came from elsewhere.
type Stale struct {
	// Source is a request for the collection, a list or a watch.
	Source Source
	Form   request.Form
}

// maxStale bounds the collections that wait to be listed. One that finds no room is
// found again with its next event.
const maxStale = 64

// Stale gives collections that should be listed again.
func (r *Recorder) Stale() <-chan Stale { return r.stale }

func (r *Recorder) report(source *Source, form request.Form) {
	select {
	case r.stale <- Stale{*source, form}:
	default:
	}
}
