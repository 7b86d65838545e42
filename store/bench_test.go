package store

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"
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
	s := NewSnapshot(scope, asked(db))
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
			known, err := db.Known(b.Context(), Resource{Principal: "p", Resource: "pods"}, Key{"default", objects[1000].Name}, "", "")
			if err != nil {
				b.Fatal(err)
			}
			if _, err := db.Payload(b.Context(), &known.States[0]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkLargeSnapshot records a list of 100,000 objects. heap-KiB is what the snapshot itself
// keeps in memory before its commit.
func BenchmarkLargeSnapshot(b *testing.B) {
	const count, group = 100_000, 500
	payload := bytes.Repeat([]byte{'x'}, 400)
	pod := func(i int) Object {
		return Object{
			Namespace: fmt.Sprint("ns-", i/1000), Name: fmt.Sprintf("web-7c5ddbdf54-%05d", i), UID: fmt.Sprintf("7d8a1b3c-0000-4000-8000-%012d", i),
			ResourceVersion: fmt.Sprint(100000 + i), Labels: `{"app":"web"}`, Encoding: JSONBare, Payload: payload,
		}
	}
	scope := Scope{Principal: "p", Version: "v1", Resource: "pods", Representation: "object"}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	record := func(b *testing.B, db *DB, order func(int) int) {
		before, s := heap(), NewSnapshot(scope, asked(db))
		for i := 0; i < count; i += group {
			err := db.Update(context.Background(), func(tx *Tx) error {
				for j := i; j < i+group; j++ {
					if err := s.Add(tx, pod(order(j))); err != nil {
						return err
					}
				}
				if i+group < count {
					return nil
				}
				b.StopTimer()
				b.ReportMetric(float64(int64(heap()-before))/1024, "heap-KiB")
				b.StartTimer()
				return s.Commit(tx, CollectionMeta{Kind: "Pod", APIVersion: "v1", ResourceVersion: "200000"})
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	inOrder := func(i int) int { return i }
	for _, tt := range []struct {
		name  string
		first bool
		order func(int) int
	}{
		{"first", true, inOrder},
		{"unchanged", false, inOrder},
		{"unchanged in another order", false, func(i int) int { return i * 7919 % count }},
	} {
		b.Run(tt.name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				db, err := Open(context.Background(), b.TempDir(), Options{})
				if err != nil {
					b.Fatal(err)
				}
				if !tt.first {
					record(b, db, inOrder)
				}
				b.StartTimer()
				record(b, db, tt.order)
				b.StopTimer()
				db.Close()
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*count), "µs/object")
		})
	}
}

// BenchmarkManyResponses evicts, and looks for outdated reviews, beside 16,000 recorded responses.
func BenchmarkManyResponses(b *testing.B) {
	const count = 16_000
	db, err := Open(b.Context(), b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	update := func(f func(*Tx) error) {
		b.Helper()
		if err := db.Update(b.Context(), f); err != nil {
			b.Fatal(err)
		}
	}
	body := bytes.Repeat([]byte{'x'}, 2000)
	update(func(tx *Tx) error {
		for i := range count {
			r := Response{Principal: "p", Path: fmt.Sprint("/apis/", i), MediaType: "application/json", Body: body}
			if i%2 == 0 {
				r.Question = fmt.Sprint(i)
			}
			if err := tx.PutResponse(r); err != nil {
				return err
			}
		}
		return nil
	})
	b.Run("review", func(b *testing.B) {
		for b.Loop() {
			update(func(tx *Tx) error { return tx.ForgetReviews(time.Unix(0, 0), count) })
		}
	})
	b.Run("evict", func(b *testing.B) {
		for b.Loop() {
			update(func(tx *Tx) error {
				_, err := tx.evictResponses(0, 1)
				return err
			})
		}
	})
}

// BenchmarkManySingles evicts singles beside 16,000 others.
func BenchmarkManySingles(b *testing.B) {
	const count = 16_000
	db, err := Open(b.Context(), b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	err = db.Update(b.Context(), func(tx *Tx) error {
		for i, o := range pods(count, 2000) {
			o.Asked, o.Told = int64(i), int64(i)
			if err := tx.PutSingle(Scope{Principal: "p", Version: "v1", Resource: fmt.Sprint("r", i%10)}, "Pod", "v1", o); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		most int64
	}{{"none", 1 << 40}, {"200", 0}} {
		b.Run(tt.name, func(b *testing.B) {
			for b.Loop() {
				err := db.Update(b.Context(), func(tx *Tx) error {
					_, err := tx.evictSingles(tt.most, 1<<40)
					return err
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
