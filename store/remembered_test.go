package store

import (
	"fmt"
	"testing"
)

// A statement makes about 60 allocations.
func TestWhatIsKnownIsRememberedUntilTheDatabaseChanges(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	s := scope("")
	known := func() string {
		t.Helper()
		k, err := db.Known(t.Context(), s.Of(), Key{"shop", "a"}, "", "")
		if err != nil || len(k.States) != 1 {
			t.Fatal(k, err)
		}
		raw, err := db.Payload(t.Context(), &k.States[0])
		if err != nil {
			t.Fatal(err)
		}
		k.States[0] = ObjectState{} // callers may change what they get
		return string(raw)
	}
	for rv := 1; rv < 4; rv++ {
		want := object("a", rv)
		update(t, db, func(tx *Tx) error { return putSingle(tx, s, want) })
		for range 2 {
			if got := known(); got != string(want.Payload) {
				t.Errorf("version %d: got %s", rv, got)
			}
		}
		if n := testing.AllocsPerRun(100, func() { known() }); n > 6 {
			t.Errorf("%.0f allocations, want at most 6", n)
		}
	}
}

func TestLittleIsRemembered(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	s := scope("")
	large := object("large", 1)
	large.Payload = make([]byte, maxRememberedPayload+1)
	update(t, db, func(tx *Tx) error { return putSingle(tx, s, large) })
	read := func(name string) {
		t.Helper()
		if _, err := db.Known(t.Context(), s.Of(), Key{"shop", name}, "", ""); err != nil {
			t.Fatal(err)
		}
	}
	read("large")
	if n := len(db.file.remembered.all); n != 0 {
		t.Errorf("%d objects are remembered, want none with a large payload", n)
	}
	for i := range 5 * maxRemembered {
		read(fmt.Sprint(i))
		if n := len(db.file.remembered.all); n < 1 || n > maxRemembered {
			t.Fatalf("%d objects are remembered, want 1 to %d", n, maxRemembered)
		}
	}
}
