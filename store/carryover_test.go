package store

import "testing"

func TestALateReadDoesNotReplaceANewerFact(t *testing.T) {
	var c carryOver
	want := func(want string) {
		t.Helper()
		if got := string(c.facts["keys"].value); got != want {
			t.Errorf("the fact is %s, want %s", got, want)
		}
	}
	c.putIfNewer("keys", fact{at: 1, value: []byte("one")})
	want("one")
	c.put("keys", fact{at: 3, value: []byte("three")})
	c.putIfNewer("keys", fact{at: 1, value: []byte("one")}) // read before three was put
	want("three")
	c.put("keys", fact{at: 2, value: []byte("put after the clock went back")})
	want("put after the clock went back")
}
