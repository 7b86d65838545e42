package upstream

import "fmt"

// State is the state of the link, over all addresses.
type State int32

const (
	// Suspect: the link may be up or down. Requests are tried. This is the state at start.
	Suspect State = iota
	// Online: an address was reached, and nothing has failed since.
	Online
	// Offline: no address can be reached. Requests fail without being tried.
	Offline
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
	}
	return fmt.Sprintf("state(%d)", int32(s))
}

func (s State) online() bool { return s != Offline }
