package upstream

import "fmt"

// State is the state of the link, over all addresses.
type State int32

const (
	// Suspect: the link may be up or down. Requests are tried. This is the state at start.
	Suspect State = iota
	// Online: an API server has answered, and nothing has failed since.
	Online
	// Offline: no address answered several rounds of probes in succession, two by default. Requests
	// fail without being tried.
	Offline
	// Recovering: an address has answered after Offline, but not yet often enough for Online, which
	// takes two answers by default.
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

// event is an observation that can change the state.
type event int

const (
	requestSucceeded event = iota // a response header arrived
	requestFailed                 // no address answered a request, or a response broke off
	roundSucceeded                // at least one address answered its probe
	roundFailed                   // no address answered its probe
)

// machine decides the state. It is a value without clock or I/O.
type machine struct {
	failureThreshold int // failed rounds in succession that make it Offline
	successThreshold int // answers that end Offline

	state        State
	failedRounds int // in succession
	answers      int // since Offline
}

// next returns the machine after an event, and whether a probe should follow at once.
func (m machine) next(e event) (after machine, probe bool) {
	switch e {
	case roundSucceeded:
		return m.up()

	case roundFailed:
		m.failedRounds++
		switch {
		case m.state == Offline:
			return m, false
		case m.state == Recovering || m.failedRounds >= m.failureThreshold:
			m.state, m.answers = Offline, 0
			return m, false
		}
		m.state = Suspect
		return m, true

	case requestSucceeded:
		// The answer may have been on its way when the link went down: it proves nothing about now.
		if m.state == Offline {
			return m, false
		}
		return m.up()

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

// up returns the machine after an answer.
func (m machine) up() (after machine, probe bool) {
	m.failedRounds = 0
	m.answers++
	if (m.state == Offline || m.state == Recovering) && m.answers < m.successThreshold {
		m.state = Recovering
		return m, true
	}
	m.state = Online
	return m, false
}
