package upstream

import "testing"

func TestMachineWithOtherThresholds(t *testing.T) {
	cases := []struct {
		name             string
		failure, success int
		events           []event
		want             []State
	}{
		{"three failures, three answers", 3, 3,
			[]event{roundFailed, roundFailed, roundFailed, roundSucceeded, roundSucceeded, requestSucceeded},
			[]State{Suspect, Suspect, Offline, Recovering, Recovering, Online}},
		{"a failure among the answers restarts the count", 1, 3,
			[]event{roundFailed, roundSucceeded, roundSucceeded, roundFailed, roundSucceeded, roundSucceeded, roundSucceeded},
			[]State{Offline, Recovering, Recovering, Offline, Recovering, Recovering, Online}},
		{"one is enough", 1, 1, []event{roundFailed, roundSucceeded, roundFailed}, []State{Offline, Online, Offline}},
		{"answers before the failures do not count", 2, 3,
			[]event{roundSucceeded, roundSucceeded, roundSucceeded, roundFailed, roundFailed, roundSucceeded},
			[]State{Online, Online, Online, Suspect, Offline, Recovering}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := machine{failureThreshold: c.failure, successThreshold: c.success}
			for i, e := range c.events {
				var probe bool
				if m, probe = m.next(e); m.state != c.want[i] || probe != (m.state == Suspect || m.state == Recovering) {
					t.Errorf("step %d: %s, probe at once: %t; want %s", i, m.state, probe, c.want[i])
				}
			}
		})
	}
}

func TestMachine(t *testing.T) {
	const (
		ok, bad        = roundSucceeded, roundFailed
		reqOK, reqFail = requestSucceeded, requestFailed
	)
	type step struct {
		event event
		state State
		probe bool
	}
	cases := []struct {
		name  string
		steps []step
	}{
		{"the first answered probe makes it online", []step{{ok, Online, false}}},
		{"the first answered request makes it online", []step{{reqOK, Online, false}}},
		{"a link that is down at start is offline after two rounds", []step{{bad, Suspect, true}, {bad, Offline, false}}},
		{"one failed round makes it suspect and is followed by a probe at once", []step{{ok, Online, false}, {bad, Suspect, true}}},
		{"two failed rounds in succession make it offline", []step{{ok, Online, false}, {bad, Suspect, true}, {bad, Offline, false}}},
		{"two failed rounds that are not in succession do not", []step{{bad, Suspect, true}, {ok, Online, false}, {bad, Suspect, true}, {ok, Online, false}}},
		{"an answered request between two failed rounds restarts the count", []step{{bad, Suspect, true}, {reqOK, Online, false}, {bad, Suspect, true}}},
		{"a failed request makes it suspect and is followed by a probe at once", []step{{ok, Online, false}, {reqFail, Suspect, true}}},
		{"failed requests alone never make it offline", []step{{ok, Online, false}, {reqFail, Suspect, true}, {reqFail, Suspect, true}, {reqFail, Suspect, true}}},
		{"a failed request does not count as a round", []step{{ok, Online, false}, {reqFail, Suspect, true}, {bad, Suspect, true}, {bad, Offline, false}}},
		{"an answered request ends suspect", []step{{ok, Online, false}, {reqFail, Suspect, true}, {reqOK, Online, false}}},
		{"it stays offline while no address answers", []step{{bad, Suspect, true}, {bad, Offline, false}, {bad, Offline, false}, {reqFail, Offline, false}}},
		{"a late answer to a request does not end offline", []step{{bad, Suspect, true}, {bad, Offline, false}, {reqOK, Offline, false}}},
		{"the first answer after offline is confirmed at once", []step{{bad, Suspect, true}, {bad, Offline, false}, {ok, Recovering, true}, {ok, Online, false}}},
		{"a failed confirmation is offline again", []step{{bad, Suspect, true}, {bad, Offline, false}, {ok, Recovering, true}, {bad, Offline, false}}},
		{"an answered request confirms too", []step{{bad, Suspect, true}, {bad, Offline, false}, {ok, Recovering, true}, {reqOK, Online, false}}},
		{"a failed request while recovering changes nothing and asks for a probe", []step{{bad, Suspect, true}, {bad, Offline, false}, {ok, Recovering, true}, {reqFail, Recovering, true}}},
		{"after recovering two rounds are needed again", []step{{bad, Suspect, true}, {bad, Offline, false}, {ok, Recovering, true}, {ok, Online, false}, {bad, Suspect, true}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := machine{failureThreshold: 2, successThreshold: 2}
			if m.state != Suspect {
				t.Fatalf("starts as %s", m.state)
			}
			for i, s := range c.steps {
				var probe bool
				if m, probe = m.next(s.event); m.state != s.state || probe != s.probe {
					t.Fatalf("step %d: %s, probe at once: %t; want %s, %t", i, m.state, probe, s.state, s.probe)
				}
			}
		})
	}
}
