package store

import "testing"

func TestAFactThatIsReadLateDoesNotReplaceANewerOne(t *testing.T) {
	var c carryOver
	want := func(want string) {
		t.Helper()
		if got := string(c.facts["keys"].value); got != want {
			t.Errorf("kept is %s, want %s", got, want)
		}
	}
	c.putIfNewer("keys", fact{at: 1, value: []byte("one")})
	want("one")
	c.put("keys", fact{at: 3, value: []byte("three")})
	c.putIfNewer("keys", fact{at: 1, value: []byte("one")}) // as it was before three was put
	want("three")
	c.put("keys", fact{at: 2, value: []byte("put by a clock that went back")})
	want("put by a clock that went back")
}
