// Package status shows a person what the sidecar knows: the link and its history, the addresses of the
// API server, what is recorded and how old it is, the open watches, the requests that would fail in
// an outage, the last errors, and the settings. [Handler] serves it as a page and as JSON. It never
// has the content of an object, nor a token: only names, numbers and times.
package status

import (
	"slices"
	"time"

	"rockpool.dev/sidecar/inspect"
	"rockpool.dev/sidecar/watch"
)

// Status is everything that the page shows.
type Status struct {
	Now     time.Time `json:"now"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	Node    string    `json:"node,omitempty"`
	Host    string    `json:"host,omitempty"` // the pod's name, or in the node's network the node's

	Link        Link         `json:"link"`
	Addresses   []Address    `json:"addresses"`
	Collections []Collection `json:"collections"`
	Documents   Documents    `json:"documents"`
	Watches     []watch.Open `json:"watches"`
	// Requests are the distinct requests of the programs since the start; they tell who has asked for
	// what is recorded.
	Requests []Request `json:"-"`
	// Failing are the requests that would fail if the link went now; Rehearsed counts all requests
	// that were asked for that, and Oldest is the oldest answer to one of the others.
	Failing   []Failing     `json:"failing"`
	Rehearsed int           `json:"rehearsed"`
	Oldest    time.Duration `json:"oldestNanoseconds"`
	Errors    []Error       `json:"errors"`
	Settings  []Setting     `json:"settings"`
	// Problems are parts of this status that could not be found out, and invalid settings.
	Problems []string `json:"problems,omitempty"`
}

// Documents are recorded answers that cannot be split into objects, such as discovery.
type Documents struct {
	Count int   `json:"count"`
	Bytes int64 `json:"bytes"`
}

// Link is the link to the API server.
type Link struct {
	State string `json:"state"` // online, suspect or offline
	// LastOnline is when it was online last: now, if it is; zero: not yet.
	LastOnline time.Time `json:"lastOnline,omitzero"`
	// Offline is how long it was down since the start.
	Offline time.Duration `json:"offlineNanoseconds"`
	// Changes are those of the last day, the first one first. They include what earlier pods with this
	// cache have seen.
	Changes []Change `json:"changes"`
}

// Change is a change of the link.
type Change struct {
	At     time.Time `json:"at"`
	State  string    `json:"state"`
	Reason string    `json:"reason"`
}

// Address is an address of the API server.
type Address struct {
	URL        string        `json:"url"`
	State      string        `json:"state"` // up, down or unknown
	Ready      bool          `json:"ready"` // by /readyz
	LastResort bool          `json:"lastResort,omitempty"`
	Heard      time.Time     `json:"heard,omitzero"`
	RoundTrip  time.Duration `json:"roundTripNanoseconds,omitempty"`
	Error      string        `json:"error,omitempty"`
}

// Collection is what is recorded of a list.
type Collection struct {
	inspect.Collection
	// InMemory collections, such as Secrets, are not on the disk.
	InMemory bool `json:"inMemory,omitempty"`
	// Watched means that an open watch keeps it in step while the link is up.
	Watched bool     `json:"watched,omitempty"`
	AskedBy []string `json:"askedBy,omitempty"` // names of User-Agents since the start
}

// Failing is a request of a program that would fail in an outage.
type Failing struct {
	Agent  string `json:"agent"`
	Method string `json:"method"`
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// Setting is the value of a key.
type Setting struct {
	Name    string `json:"name"`
	Value   string `json:"value"`
	Source  string `json:"source"`
	Pending bool   `json:"pending,omitempty"` // it takes effect after a restart
}

// shown is how much history the timeline has.
const shown = 24 * time.Hour

// Segment is a part of the timeline in which the link had one state.
type Segment struct {
	State    string // empty: nothing is known
	From, To time.Time
	X, Width float64 // in percent of the timeline
}

// Timeline cuts the last day into segments, the first one first.
func (s *Status) Timeline() []Segment {
	begin := s.Now.Add(-shown)
	at, state := begin, ""
	var all []Segment
	add := func(to time.Time) {
		if to.After(at) {
			all = append(all, Segment{
				State: state, From: at, To: to,
				X: 100 * float64(at.Sub(begin)) / float64(shown), Width: 100 * float64(to.Sub(at)) / float64(shown),
			})
			at = to
		}
	}
	for _, c := range s.Link.Changes {
		if c.At.After(s.Now) { // the clock was set back
			continue
		}
		add(c.At)
		state = c.State
	}
	if len(s.Link.Changes) == 0 { // the history is not known, or has no change
		add(s.Started)
		state = s.Link.State
	}
	add(s.Now)
	return all
}

// Outages counts the times that the link went down in the last day, and how long it was down.
func (s *Status) Outages() (o struct {
	Count int
	Time  time.Duration
}) {
	before := ""
	for _, x := range s.Timeline() {
		if x.State == "offline" {
			o.Time += x.To.Sub(x.From)
			if before != "offline" {
				o.Count++
			}
		}
		before = x.State
	}
	return o
}

// Latest are the changes of the link, the latest one first, and not more than a page can have.
func (s *Status) Latest() []Change {
	const most = 50
	all := slices.Clone(s.Link.Changes)
	slices.Reverse(all)
	return all[:min(len(all), most)]
}
