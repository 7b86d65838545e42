package store

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"
)

func doc(path, etag, body string) Response {
	return Response{Principal: "web", Path: path, Status: 200, MediaType: "application/json", ETag: etag, Headers: `{"Vary":["Accept"]}`, Body: []byte(body)}
}

func hasResponse(t *testing.T, db *DB, path string) bool {
	t.Helper()
	_, err := db.Response(t.Context(), "web", path, "")
	if err != nil && !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

func TestRevalidationRenewsAResponse(t *testing.T) {
	now := clock
	db, err := Open(t.Context(), t.TempDir(), Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	update(t, db, func(tx *Tx) error { return tx.PutResponse(doc("/apis", `"1"`, "groups")) })
	now = clock.Add(time.Hour)
	update(t, db, func(tx *Tx) error { return tx.RenewResponse("web", "/apis", "", `"another"`, db.Next()) })
	if r, err := db.Response(t.Context(), "web", "/apis", ""); err != nil || !r.StoredAt.Equal(clock) || r.Headers != `{"Vary":["Accept"]}` {
		t.Fatalf("renewed for another etag: %+v %v", r, err)
	}
	update(t, db, func(tx *Tx) error { return tx.RenewResponse("web", "/apis", "", `"1"`, db.Next()) })
	if r, err := db.Response(t.Context(), "web", "/apis", ""); err != nil || !r.StoredAt.Equal(now) || string(r.Body) != "groups" {
		t.Fatalf("%+v %v", r, err)
	}
	if etag, err := db.ETag(t.Context(), "web", "/apis", ""); err != nil || etag != `"1"` {
		t.Fatalf("%s %v", etag, err)
	}
	if _, err := db.ETag(t.Context(), "other", "/apis", ""); !errors.Is(err, ErrNotFound) {
		t.Fatalf("another principal's etag: %v", err)
	}
}

func TestResponsesAreRemovedByPath(t *testing.T) {
	put := func(db *DB) {
		update(t, db, func(tx *Tx) error {
			var errs []error
			for _, path := range []string{"/a", "/a?x=1", "/a/b", "/ab", "/a_?h=1", "/aX?h=1"} {
				errs = append(errs, tx.PutResponse(doc(path, "", path)))
			}
			return errors.Join(errs...)
		})
	}
	db := openAt(t, t.TempDir(), Options{})
	for _, tt := range []struct {
		name   string
		change func(*Tx) error
		left   map[string]bool
	}{
		{"of a path with any query", func(tx *Tx) error { return tx.RemoveResponse("web", "/a") },
			map[string]bool{"/a": false, "/a?x=1": false, "/a/b": true, "/ab": true}},
		{"of the given principal only", func(tx *Tx) error { return tx.RemoveResponse("other", "/a") }, map[string]bool{"/a": true}},
		{"with another query than the given one", func(tx *Tx) error { return tx.ReplaceResponses("web", "/a", "/a?x=2") },
			map[string]bool{"/a": true, "/a?x=1": false, "/a/b": true}},
		{"a path is not a pattern", func(tx *Tx) error { return tx.ReplaceResponses("web", "/a_", "/a_?h=2") },
			map[string]bool{"/a_?h=1": false, "/aX?h=1": true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			put(db)
			update(t, db, tt.change)
			for path, want := range tt.left {
				if hasResponse(t, db, path) != want {
					t.Errorf("%s is there: %v", path, !want)
				}
			}
		})
	}
}

func TestReviewsAreBoundedByAgeAndNumber(t *testing.T) {
	now := clock
	dir := t.TempDir()
	db, err := Open(t.Context(), dir, Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	hasReview := func(n int) bool {
		t.Helper()
		_, err := db.Review(t.Context(), "web", "/reviews", "", fmt.Sprint(n))
		return err == nil
	}
	update(t, db, func(tx *Tx) error { return tx.PutResponse(doc("/reviews", "", "not a review")) })
	for i := range 10 {
		update(t, db, func(tx *Tx) error {
			r := doc("/reviews", "", "sealed")
			r.Question = fmt.Sprint(i)
			return tx.PutResponse(r)
		})
		now = now.Add(time.Minute)
	}
	update(t, db, func(tx *Tx) error { return tx.ForgetReviews(clock.Add(3*time.Minute), 5) })
	for i, want := range []bool{false, false, false, false, false, true, true, true, true, true} {
		if hasReview(i) != want {
			t.Errorf("review %d is there: %v", i, !want)
		}
	}
	update(t, db, func(tx *Tx) error { return tx.ForgetReviews(clock.Add(7*time.Minute), 5) })
	if hasReview(6) || !hasReview(7) {
		t.Error("reviews are not removed by age")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = openAt(t, dir, Options{})
	if hasReview(9) || !hasResponse(t, db, "/reviews") {
		t.Error("want the reviews gone after a restart, which lost their key, and the other response kept")
	}
}

func TestAResponseOfTheWrongSizeIsCorrupt(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	update(t, db, func(tx *Tx) error {
		if err := tx.PutResponse(doc("/apis", `"1"`, "groups")); err != nil {
			return err
		}
		_, err := tx.tx.Exec(`UPDATE response SET body = ?`, bytes.Repeat([]byte("x"), 3))
		return err
	})
	if _, err := db.Response(t.Context(), "web", "/apis", ""); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("%v", err)
	}
}
