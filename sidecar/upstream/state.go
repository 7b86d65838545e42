package upstream

import "fmt"

// State is the state of the link, over all addresses.
type State int32

const (
	// Suspect: it is not known whether the link is up. Requests are tried. The state at start.
	Suspect State = iota
	// Online: an API server has answered, and nothing has failed since.
	Online
	// Offline: no address answered two rounds of probes in succession. Requests fail without being tried.
	Offline
	// Recovering: an address has answered once after Offline. One more answer makes it Online.
	Recovering
)

// String returns the state as it appears in logs and metrics.
func (s State) String() string {
	switch s {
	case Suspect:
		return "suspect"
	case Online:
		return "online"
	case Offline:
		return "offline"
	case Recovering:
		return "recovering"
	}
	return fmt.Sprintf("state(%d)", int32(s))
}

// event is what the state depends on.
type event int

const (
	requestSucceeded event = iota // a response header came
	requestFailed                 // no address answered a request, or a response broke off
	roundSucceeded                // at least one address answered its probe
	roundFailed                   // no address answered its probe
)

// offlineAfter is how many rounds of probes have to fail in succession.
const offlineAfter = 2

// machine decides on the state. It is a value without clock or I/O.
type machine struct {
	state  State
	failed int // rounds in succession
}

// next returns the machine after an event, and whether a probe should follow at once.
func (m machine) next(e event) (after machine, probe bool) {
	switch e {
	case roundSucceeded:
		m.failed = 0
		if m.state == Offline {
			m.state = Recovering
			return m, true
		}
		m.state = Online
		return m, false

	case roundFailed:
		m.failed++
		switch {
		case m.state == Offline:
			return m, false
		case m.state == Recovering || m.failed >= offlineAfter:
			m.state = Offline
			return m, false
		}
		m.state = Suspect
		return m, true

	case requestSucceeded:
		// An answer that was on its way when the link went down says nothing about now.
		if m.state != Offline {
			m.state, m.failed = Online, 0
		}
		return m, false

	case requestFailed:
		switch m.state {
		case Offline:
			return m, false
		case Online:
			m.state = Suspect
		}
		return m, true
	}
	return m, false
}
