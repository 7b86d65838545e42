package history

import (
	"fmt"
	"maps"
	"slices"
)

// CatchUp is a difference between two versions that the sidecar has sent to a client.
type CatchUp struct{ From, To uint64 }

// Checker checks that a client gets the events of a history, each once and in order, or a
// difference that the sidecar has logged. A client never steps back: a list, or a stream that begins
// with the present state, is not older than anything that it was told before.
type Checker struct {
	history     *History
	bookmarks   bool
	catchUps    map[uint64][]uint64 // versions To by From
	from        []uint64            // the keys of catchUps, in order
	differences map[CatchUp][]Event
	positions   []position // the client is at one of them
	burst       *burst     // or still within its initial events
	told        uint64     // the newest version that it was told

	// State is what the client has, UID/resourceVersion by name.
	State map[string]string
	// Counts are the numbers of events by type.
	Counts map[string]int
}

// position is a possible position of a client: it has all events up to a version, except for the
// remaining events of the difference from another version, of which it has got some.
type position struct {
	version, from uint64
	got           int
}

// burst are the initial events of a watch without a version. Its client has got one ADDED event for
// each object of its state. The state that the server tells was before one of the events with the
// indices first to last.
type burst struct{ first, last int }

// NewChecker returns a checker of a client. bookmarks says whether the client asks for them.
func NewChecker(h *History, bookmarks bool, sent []CatchUp) *Checker {
	c := &Checker{
		history: h, bookmarks: bookmarks, catchUps: map[uint64][]uint64{}, differences: map[CatchUp][]Event{},
		State: map[string]string{}, Counts: map[string]int{},
	}
	for _, s := range sent {
		if s.To > s.From {
			c.catchUps[s.From] = append(c.catchUps[s.From], s.To)
		}
	}
	c.from = slices.Sorted(maps.Keys(c.catchUps))
	return c
}

// Check checks the next event of the client.
func (c *Checker) Check(e Event) error {
	c.Counts[e.Event]++
	var err error
	switch e.Event {
	case "gone":
		c.positions, c.burst = nil, nil
		return nil
	case "listed":
		if want := c.history.At(e.Version()); !maps.Equal(Fold(nil, e), want) {
			return fmt.Errorf("%s: a list at %s has %v, want %v", e.Client, e.ResourceVersion, e.Objects, want)
		}
		if c.history.changed(e.Version(), c.told) {
			return fmt.Errorf("%s steps back: it reads %s after it was told %d", e.Client, e.ResourceVersion, c.told)
		}
		c.positions, c.burst = []position{{version: e.Version()}}, nil
	case "absent":
		err = c.absent(e)
	case "watch":
		c.positions, c.burst = []position{{version: e.Version()}}, nil
		if e.ResourceVersion == "" {
			c.positions, c.burst = nil, c.begin()
		}
	default:
		err = c.event(e)
	}
	if err != nil {
		return err
	}
	c.State, c.told = Fold(c.State, e), max(c.told, e.Version())
	return nil
}

func (c *Checker) begin() *burst {
	c.history.mu.Lock()
	defer c.history.mu.Unlock()
	return &burst{c.history.after(c.told), len(c.history.events)}
}

// absent checks a 404 for the only object of the history.
func (c *Checker) absent(e Event) error {
	c.history.mu.Lock()
	defer c.history.mu.Unlock()
	if _, ok := c.history.ofSize(0, c.history.after(c.told), len(c.history.events)); !ok {
		return fmt.Errorf("%s: 404 of an object that was always there since %d, the newest version that it was told", e.Client, c.told)
	}
	c.positions, c.burst = nil, nil
	return nil
}

// event checks an event of a watch.
func (c *Checker) event(e Event) error {
	c.history.mu.Lock()
	defer c.history.mu.Unlock()
	before, within := c.positions, c.burst
	c.positions = nil
	if within != nil {
		c.initial(*within, e)
	}
	// An empty difference leads from one possible position to another one.
	possible := slices.Clone(before)
	for i := 0; i < len(possible); i++ {
		possible = c.next(possible, possible[i], e)
	}
	if len(c.positions) > 0 || c.burst != nil {
		return nil
	}
	if within != nil {
		return fmt.Errorf("%s gets %v behind %d initial events; it was told %d, and they tell a state before one of the events %d to %d of the shadow: %v",
			e.Client, e, len(c.State), c.told, within.first, within.last, c.around(within.first))
	}
	if len(before) == 0 {
		return fmt.Errorf("%s gets %v without a list or a stream", e.Client, e)
	}
	p := before[0]
	return fmt.Errorf("%s gets %v after %d, the shadow %v; pending may be %v", e.Client, e, p.version, c.around(c.history.after(p.version)), c.pending(p))
}

// around are the events next to an index.
func (c *Checker) around(i int) []Event {
	events := c.history.events
	return events[max(0, i-3):min(len(events), i+5)]
}

// initial checks an event of a client within its initial events, or just behind them.
func (c *Checker) initial(b burst, e Event) {
	h := c.history
	c.burst = nil
	if _, had := c.State[e.Name]; e.Event == "ADDED" && !had {
		if first, last, ok := h.span(e); ok && max(first, b.first) <= min(last, b.last) {
			c.burst = &burst{max(first, b.first), min(last, b.last)}
		}
	}
	complete, ok := h.ofSize(len(c.State), b.first, b.last)
	if !ok {
		return // there was no state with only these objects
	}
	// The server may repeat what was between the newest object and the state that it has told: a
	// stream that is resumed has no other version than that of the newest object.
	if i, ok := h.index(e); ok && b.first <= i && i <= complete {
		c.add(position{version: e.Version()})
	}
	i := 0
	if b.first > 0 {
		i, _ = slices.BinarySearch(c.from, h.versions[b.first-1])
	}
	for ; i < len(c.from) && h.after(c.from[i]) <= complete; i++ {
		for _, to := range c.catchUps[c.from[i]] {
			c.next(nil, position{version: to, from: c.from[i]}, e)
		}
	}
}

// pending are the remaining events of the difference that a client at p is getting.
func (c *Checker) pending(p position) []Event {
	if p.from == 0 {
		return nil
	}
	key := CatchUp{p.from, p.version}
	if _, ok := c.differences[key]; !ok {
		c.differences[key] = c.history.difference(key, c.bookmarks)
	}
	return c.differences[key][p.got:]
}

// next adds the positions at which a client that was at p may be after e. It returns possible with
// the positions at which the client may have been as well.
func (c *Checker) next(possible []position, p position, e Event) []position {
	if pending := c.pending(p); len(pending) > 0 {
		if pending[0].same(e) {
			p.got++
			if len(pending) == 1 {
				p = position{version: p.version}
			}
			c.add(p)
		}
		return possible
	}
	h := c.history
	i := h.after(p.version)
	switch {
	case e.Event == "BOOKMARK":
		if e.Version() >= p.version && h.after(e.Version()) == i {
			c.add(position{version: e.Version()})
		}
	case i < len(h.events) && h.events[i].same(e):
		c.add(position{version: e.Version()})
	}
	for _, to := range c.catchUps[p.version] {
		if q := (position{version: to, from: p.version}); !slices.Contains(possible, q) {
			possible = append(possible, q)
		}
	}
	return possible
}

// add adds a position once: two ways to one position would be four after the next event.
func (c *Checker) add(p position) {
	if !slices.Contains(c.positions, p) {
		c.positions = append(c.positions, p)
	}
}
