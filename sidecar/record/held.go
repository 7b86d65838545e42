package record

import "rockpool.dev/store"

// maxHeld bounds the bytes of the events that one watch holds.
const maxHeld = 256 << 10

// heldEvents are the events of a watch that came behind a gap. The list that closes the gap may be
// older than some of them: they are applied behind it. Otherwise a collection that changes while it
// is listed would stay behind for ever.
type heldEvents struct {
	events []*event
	bytes  int
}

// hold keeps an event. If there are too many, the oldest are dropped: a newer list replaces them.
func (h *heldEvents) hold(e *event) {
	h.events = append(h.events, e)
	h.bytes += e.size()
	for h.bytes > maxHeld {
		h.bytes -= h.events[0].size()
		h.events = h.events[1:]
	}
}

// apply applies the events that continue from the version of a list, and forgets them all.
func (h *heldEvents) apply(g *group, list store.Evidence) error {
	events := h.events
	*h = heldEvents{}
	for _, e := range events {
		if list.Read == store.Latest && e.told < list.Asked && store.NewerVersion(e.version, list.Version) {
			continue // of versions that never happened: the cluster was restored since
		}
		p, err := g.position(e.stream.scope)
		if err != nil {
			return err
		}
		v := p.verdict(e.prev, e.version, e.stream.source.told)
		if v == applied && e.superseded {
			v = superseded
		}
		if v == applied || v == superseded {
			if err := e.move(g, p, v); err != nil {
				return err
			}
		}
	}
	return nil
}
