package store

import (
	"bytes"
	"context"
	"fmt"
	"testing"
)

// pods makes n objects with payloads of about size bytes.
func pods(n, size int) []Object {
	objects := make([]Object, n)
	for i := range objects {
		objects[i] = Object{
			Namespace: "default", Name: fmt.Sprintf("web-7c5ddbdf54-%05d", i), UID: fmt.Sprintf("7d8a1b3c-0000-4000-8000-%012d", i),
			ResourceVersion: fmt.Sprint(100000 + i), Labels: `{"app":"web","pod-template-hash":"7c5ddbdf54"}`, Encoding: JSONBare,
			Payload: append(bytes.Repeat([]byte{'x'}, size), fmt.Sprint(i)...),
		}
	}
	return objects
}

// recordInGroups records a list as the recorder does: in several transactions.
func recordInGroups(b testing.TB, db *DB, scope Scope, objects []Object) {
	const group = 256
	s := NewSnapshot(scope)
	for i := 0; i < len(objects); i += group {
		err := db.Update(context.Background(), func(tx *Tx) error {
			for _, o := range objects[i:min(i+group, len(objects))] {
				if err := s.Add(tx, o); err != nil {
					return err
				}
			}
			if i+group >= len(objects) {
				return s.Commit(tx, CollectionMeta{Kind: "Pod", APIVersion: "v1", ResourceVersion: "200000"})
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSnapshot(b *testing.B) {
	objects := pods(2000, 3400)
	scope := Scope{Principal: "p", Version: "v1", Resource: "pods", Representation: "object"}
	run := func(b *testing.B, unchanged bool) {
		db, err := Open(context.Background(), b.TempDir(), Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		if unchanged {
			recordInGroups(b, db, scope, objects)
		}
		b.SetBytes(2000 * 3400)
		n := 0
		for b.Loop() {
			if !unchanged {
				scope.Namespace = fmt.Sprint(n)
				if n++; n > 20 {
					b.StopTimer()
					db.Close()
					if db, err = Open(context.Background(), b.TempDir(), Options{}); err != nil {
						b.Fatal(err)
					}
					n = 0
					b.StartTimer()
				}
			}
			recordInGroups(b, db, scope, objects)
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(objects)), "µs/object")
	}
	b.Run("first", func(b *testing.B) { run(b, false) })
	b.Run("unchanged", func(b *testing.B) { run(b, true) })
}

func BenchmarkRead(b *testing.B) {
	db, err := Open(context.Background(), b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	objects := pods(2000, 3400)
	scope := Scope{Principal: "p", Version: "v1", Resource: "pods", Representation: "object"}
	recordInGroups(b, db, scope, objects)
	all, err := db.Collections(b.Context(), "p", "", "v1", "pods")
	if err != nil || len(all) != 1 {
		b.Fatal(all, err)
	}
	b.Run("list", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var r Range
			for {
				next, err := db.List(b.Context(), all[0].ID, all[0].Revision, r, func(Object) error { return nil })
				if err != nil {
					b.Fatal(err)
				}
				if next == nil {
					break
				}
				r.After = next
			}
		}
	})
	b.Run("measure", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := db.Measure(b.Context(), all[0].ID, all[0].Revision, Range{}, func(string, int, int) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("get", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := db.Collections(b.Context(), "p", "", "v1", "pods"); err != nil {
				b.Fatal(err)
			}
			if _, _, err := db.Object(b.Context(), all[0].ID, "default", objects[1000].Name); err != nil {
				b.Fatal(err)
			}
		}
	})
}
