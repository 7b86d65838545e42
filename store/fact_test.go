package store

import "testing"

func TestAFactThatIsReadLateDoesNotReplaceANewerOne(t *testing.T) {
	var k carryOver
	want := func(want string) {
		t.Helper()
		if got := string(k.facts["keys"].value); got != want {
			t.Errorf("kept is %s, want %s", got, want)
		}
	}
	k.read("keys", fact{at: 1, value: []byte("one")})
	want("one")
	k.put("keys", fact{at: 3, value: []byte("three")})
	k.read("keys", fact{at: 1, value: []byte("one")}) // as it was before three was put
	want("three")
	k.put("keys", fact{at: 2, value: []byte("put by a clock that went back")})
	want("put by a clock that went back")
}
