package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"
)

// pinned returns a collection of some pages, and a pin of it.
func pinned(t *testing.T, ctx context.Context) (*DB, Collection, *Pin) {
	t.Helper()
	db := openAt(t, t.TempDir(), Options{})
	var objects []Object
	for i := range pageRows + 10 {
		objects = append(objects, object(fmt.Sprintf("o%04d", i), 1))
	}
	record(t, db, scope("shop"), "1", objects...)
	c, _ := complete(t, db, scope("shop"))
	p, err := db.Pin(t.Context(), ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return db, c, p
}

func (p *Pin) read(t *testing.T, c Collection) (versions map[string]int, err error) {
	versions = map[string]int{}
	for r := (Range{}); ; {
		next, err := p.List(t.Context(), c.ID, c.Revision, r, func(o Object) error { versions[o.ResourceVersion]++; return nil })
		if err != nil || next == nil {
			return versions, err
		}
		r.After = next
	}
}

func TestAPinHoldsOneStateWhileAnotherIsWritten(t *testing.T) {
	db, c, p := pinned(t, t.Context())
	record(t, db, scope("shop"), "2", object("o0001", 2))
	if got, err := p.read(t, c); err != nil || got["1"] != pageRows+10 || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	n := 0
	if err := p.Measure(t.Context(), c.ID, c.Revision, Range{}, func(_ string, _, count int) error { n += count; return nil }); err != nil || n != pageRows+10 {
		t.Errorf("%d, %v", n, err)
	}
	p.Close()
	p.Close()
	if got, err := p.read(t, c); !errors.Is(err, ErrChanged) {
		t.Errorf("after its end it reads %v, %v", got, err)
	}
}

func TestAPinEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, c, p := pinned(t, ctx)
	cancel()
	if got, err := p.read(t, c); err != nil || got["1"] != pageRows+10 {
		t.Errorf("nothing has changed, and it reads %v, %v", got, err)
	}
}

func TestPinsLeaveRoomForOtherReaders(t *testing.T) {
	db, c, first := pinned(t, t.Context())
	for range maxPins - 1 {
		p, err := db.Pin(t.Context(), t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
	}
	if got := names(t, db, c, Range{Name: "o0001"}); len(got) != 1 {
		t.Errorf("another reader reads %v", got)
	}
	waiting, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := db.Pin(waiting, t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one pin too many: %v", err)
	}
	first.Close()
	p, err := db.Pin(t.Context(), t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
}

// A file may be replaced while a pin holds a state of it. What the old one has is no news of the
// new one.
func TestAPinEndsWithItsFile(t *testing.T) {
	db, c, p := pinned(t, t.Context())
	if err := os.Remove(db.Path()); err != nil {
		t.Fatal(err)
	}
	if err := db.Recreate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := p.read(t, c); !errors.Is(err, ErrChanged) {
		t.Errorf("it reads %v, %v", got, err)
	}
	// As if the old file had a damaged page.
	if err := p.view(t.Context(), "read", func(*sql.Tx) error { return ErrCorrupt }); !errors.Is(err, ErrChanged) {
		t.Error(err)
	}
	if err := db.Update(t.Context(), func(*Tx) error { return nil }); err != nil {
		t.Errorf("the new file: %v", err)
	}
}
