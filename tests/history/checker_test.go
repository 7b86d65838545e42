package history

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// names is the number of objects that come and go.
const names = 24

// made returns a random history of n events, and its initial objects.
func made(n int) (*History, []Event) {
	random := rand.New(rand.NewPCG(1, 2))
	state := map[string]string{"still": "u0/3"}
	h := New(state)
	var events []Event
	for i := range n {
		e := Event{Event: "MODIFIED", Name: fmt.Sprintf("o%02d", random.IntN(names)), ResourceVersion: fmt.Sprint(10 + 2*i)}
		switch object, had := state[e.Name]; {
		case !had:
			e.Event, e.UID = "ADDED", fmt.Sprint("u", i)
		case random.IntN(4) == 0:
			e.Event, e.UID = "DELETED", uidOf(object)
		default:
			e.UID = uidOf(object)
		}
		state = Fold(state, e)
		h.Append(e)
		events = append(events, e)
	}
	return h, events
}

func listed(h *History, version uint64) Event {
	return Event{Client: "c", Event: "listed", ResourceVersion: fmt.Sprint(version), Objects: h.At(version)}
}

// burstOf are the initial events of a watch without a version.
func burstOf(h *History, version uint64) []Event {
	all := []Event{{Client: "c", Event: "watch"}}
	state := h.At(version)
	for _, name := range slices.Sorted(maps.Keys(state)) {
		all = append(all, Event{Event: "ADDED", Name: name, UID: uidOf(state[name]), ResourceVersion: fmt.Sprint(versionOf(state[name]))})
	}
	return all
}

// checked returns the first complaint about the events of a client.
func checked(c *Checker, events ...Event) error {
	for i, e := range events {
		if err := c.Check(e); err != nil {
			return fmt.Errorf("line %d: %w", i, err)
		}
	}
	return nil
}

// A soak of an hour has some 100,000 events for each client, and thousands of differences, each of
// them logged once for each client.
func TestALongHistoryIsCheckedInSeconds(t *testing.T) {
	const length, every, clients = 200_000, 50, 9
	h, events := made(length)
	var sent []CatchUp
	lines := []Event{listed(h, 3)}
	for i := 0; i < length; i += every {
		from, to := events[max(i, 1)-1].Version(), events[i+every-1].Version()
		switch i / every % 8 {
		case 0:
			lines = append(lines, events[i:i+every]...)
		case 6:
			lines = append(lines, Event{Event: "gone"}, listed(h, from))
			lines = append(lines, events[i:i+every]...)
		case 7:
			lines = append(lines, burstOf(h, from)...)
			lines = append(lines, events[i:i+every]...)
		default: // one behind the other, as a link that is down again and again has it
			for range clients {
				sent = append(sent, CatchUp{from, to})
			}
			lines = append(lines, h.difference(CatchUp{from, to}, true)...)
		}
	}
	began := time.Now()
	c := NewChecker(h, true, sent)
	if err := checked(c, lines...); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	t.Logf("%d lines, %d events, %d differences: %s", len(lines), length, len(sent), took)
	if want := h.At(events[length-1].Version()); !maps.Equal(c.State, want) {
		t.Errorf("the client has %v at the end, want %v", c.State, want)
	}
	if took > 10*time.Second { // 0.4 s with the race detector on two cores
		t.Errorf("the check took %s", took)
	}
}

// Every event may be the one that a client has lost, or has got twice or too early.
func TestEachLostDoubledOrSwappedEventIsFound(t *testing.T) {
	h, events := made(300)
	for i := range len(events) - 1 {
		for name, got := range map[string][]Event{
			"lost":    slices.Concat(events[:i], events[i+1:]),
			"doubled": slices.Concat(events[:i+1], events[i:]),
			"swapped": slices.Concat(events[:i], []Event{events[i+1], events[i]}, events[i+2:]),
		} {
			if err := checked(NewChecker(h, true, nil), append([]Event{listed(h, 3)}, got...)...); err == nil {
				t.Errorf("event %d is %s, and nobody notices", i, name)
			}
		}
	}
}

func TestAViolationIsFound(t *testing.T) {
	h := New(map[string]string{"a": "u1/2"})
	events := []Event{
		{Event: "ADDED", Name: "b", UID: "u2", ResourceVersion: "10"},
		{Event: "MODIFIED", Name: "a", UID: "u1", ResourceVersion: "11"},
		{Event: "DELETED", Name: "b", UID: "u2", ResourceVersion: "12"},
		{Event: "ADDED", Name: "b", UID: "u3", ResourceVersion: "14"},
		{Event: "DELETED", Name: "a", UID: "u1", ResourceVersion: "15"},
		{Event: "DELETED", Name: "b", UID: "u3", ResourceVersion: "16"},
		{Event: "ADDED", Name: "c", UID: "u4", ResourceVersion: "20"},
	}
	for _, e := range events {
		h.Append(e)
	}
	from10to14 := CatchUp{10, 14}
	line := func(event, name, uid, version string) Event {
		return Event{Event: event, Name: name, UID: uid, ResourceVersion: version}
	}
	watch := line("watch", "", "", "")
	added := func(name, uid, version string) Event { return line("ADDED", name, uid, version) }
	bookmark := func(version string) Event { return line("BOOKMARK", "", "", version) }
	stale := func(version uint64, objects map[string]string) Event {
		l := listed(h, version)
		l.Objects = objects
		return l
	}
	for _, tt := range []struct {
		name  string
		lines []Event
		want  string // "": no violation
	}{
		{"a list and all events", append([]Event{listed(h, 3)}, events...), ""},
		{"a list that has lost an object", []Event{stale(10, map[string]string{"a": "u1/2"})}, "want map"},
		{"a list with an object that is gone", []Event{stale(12, map[string]string{"a": "u1/11", "b": "u2/10"})}, "want map"},
		{"a list with an old object", []Event{stale(12, map[string]string{"a": "u1/2"})}, "want map"},
		{"a list of before the last event", []Event{listed(h, 11), events[2], line("gone", "", "", ""), listed(h, 11)}, "steps back"},
		{"a list of before the last bookmark", []Event{listed(h, 11), line("watch", "", "", "12"), bookmark("13"), line("gone", "", "", ""), listed(h, 11)}, "steps back"},
		{"a list of another version, but the same state", []Event{listed(h, 12), bookmark("13"), line("gone", "", "", ""), listed(h, 12)}, ""},
		{"a bookmark behind an event that was not sent", []Event{listed(h, 12), bookmark("14")}, "gets BOOKMARK"},
		{"a bookmark that steps back", []Event{listed(h, 12), bookmark("11")}, "gets BOOKMARK"},
		{"an event of another object of the same name", []Event{listed(h, 12), added("b", "u2", "14")}, "gets ADDED"},
		{"an event before any list", []Event{events[0]}, "without a list"},

		{"a difference that was sent", []Event{listed(h, 10), line("DELETED", "b", "u2", "10"), line("MODIFIED", "a", "u1", "11"), added("b", "u3", "14"), bookmark("14"), events[4]}, ""},
		{"a difference that was not sent", []Event{listed(h, 11), line("DELETED", "b", "u2", "11")}, "gets DELETED"},
		{"a difference without a deletion", []Event{listed(h, 10), line("MODIFIED", "a", "u1", "11"), added("b", "u3", "14")}, "gets ADDED"},
		{"a difference without its bookmark", []Event{listed(h, 10), line("DELETED", "b", "u2", "10"), line("MODIFIED", "a", "u1", "11"), added("b", "u3", "14"), events[4]}, "pending may be [BOOKMARK"},
		{"an event that a difference has told", []Event{listed(h, 10), line("DELETED", "b", "u2", "10"), line("MODIFIED", "a", "u1", "11"), added("b", "u3", "14"), bookmark("14"), events[3]}, "gets ADDED"},

		{"initial events and those after them", []Event{watch, added("b", "u2", "10"), added("a", "u1", "11"), events[2], events[3]}, ""},
		{"initial events that stand for two states", []Event{watch, added("a", "u1", "2"), added("b", "u2", "10"), events[1]}, ""},
		{"what was before the initial events is repeated", []Event{watch, added("a", "u1", "11"), events[2], events[3]}, ""},
		{"no initial events", []Event{watch, events[6]}, ""},
		{"initial events and a difference", []Event{watch, added("a", "u1", "2"), added("b", "u2", "10"), line("DELETED", "b", "u2", "10")}, ""},
		{"initial events without an object", []Event{watch, added("a", "u1", "11"), events[4]}, "initial events"},
		{"initial events of different times", []Event{watch, added("a", "u1", "2"), added("b", "u3", "14")}, "initial events"},
		{"the same initial event twice", []Event{watch, added("a", "u1", "11"), added("a", "u1", "11")}, "initial events"},
		{"initial events with an object that was never like that", []Event{watch, added("a", "u9", "11")}, "initial events"},
		{"initial events of before the last stream", []Event{watch, added("a", "u1", "11"), events[2], watch, added("b", "u2", "10")}, "initial events"},
		{"initial events with an object of which the deletion was told", []Event{listed(h, 14), events[4], events[5], watch, added("b", "u3", "14")}, "initial events"},
		{"an event after the initial events is lost", []Event{watch, added("a", "u1", "11"), added("b", "u3", "14"), events[5]}, "initial events"},

		{"404 of an object that is there", []Event{listed(h, 20), line("absent", "", "", "")}, "always there"},
		{"404 of what was absent once", []Event{listed(h, 12), line("absent", "", "", "")}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := checked(NewChecker(h, true, []CatchUp{from10to14, from10to14}), tt.lines...)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
