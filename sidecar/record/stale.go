package record

import "rockpool.dev/sidecar/api/request"

// Stale is a collection that must be relisted. An event or an item of it was not recorded, and
// later events do not continue from its version; it stays correct for that version. Or there is no
// collection although it is watched: it was lost with the cache file, its versions contradicted
// each other, or the watch continues from a state that came from elsewhere.
type Stale struct {
	// Source is a request for the collection, a list or a watch.
	Source Source
	Form   request.Form
}

// maxStale bounds the collections that wait for a relist. If one does not fit, its next event
// reports it again.
const maxStale = 64

// Stale returns the channel of the collections to relist.
func (r *Recorder) Stale() <-chan Stale { return r.stale }

func (r *Recorder) report(source *Source, form request.Form) {
	select {
	case r.stale <- Stale{*source, form}:
	default:
	}
}
