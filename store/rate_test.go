package store

import (
	"math"
	"os"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
)

var near, far = []string{"https://192.0.2.1:6443", "https://10.96.0.1:443"}, []string{"https://198.51.100.1:6443"}

func putRate(t *testing.T, db *DB, servers []string, rate int64) {
	t.Helper()
	update(t, db, func(tx *Tx) error { return tx.PutRate(Rate{Servers: servers, BytesPerSecond: rate}) })
}

func wantRate(t *testing.T, db *DB, servers []string, want int64) {
	t.Helper()
	if got, err := db.Rate(t.Context(), servers); err != nil || got != want {
		t.Errorf("the rate to %v is %d, %v, want %d", servers, got, err, want)
	}
}

func TestWhatARateReplaces(t *testing.T) {
	for name, c := range map[string]struct {
		value   string // of the row; empty: there is none
		servers []string
		rate    int64
		want    int64 // for near
	}{
		"the first one is written":                      {"", near, 1000, 1000},
		"one that is about the same is not":             {`{"servers":["https://192.0.2.1:6443","https://10.96.0.1:443"],"bytes_per_second":1000}`, near, 1500, 1000},
		"nor one that is a little less":                 {`{"servers":["https://192.0.2.1:6443","https://10.96.0.1:443"],"bytes_per_second":1500}`, near, 1000, 1500},
		"one that is more is written":                   {`{"servers":["https://192.0.2.1:6443","https://10.96.0.1:443"],"bytes_per_second":1000}`, near, 1501, 1501},
		"one that is less is written":                   {`{"servers":["https://192.0.2.1:6443","https://10.96.0.1:443"],"bytes_per_second":1501}`, near, 1000, 1000},
		"the same of other servers is written":          {`{"servers":["https://198.51.100.1:6443"],"bytes_per_second":1000}`, near, 1000, 1000},
		"one of other servers is not that of these":     {`{"servers":["https://192.0.2.1:6443","https://10.96.0.1:443"],"bytes_per_second":1000}`, far, 1000, 0},
		"the same servers in another order are others":  {`{"servers":["https://10.96.0.1:443","https://192.0.2.1:6443"],"bytes_per_second":1000}`, near, 1000, 1000},
		"nonsense is replaced":                          {`NaN`, near, 1000, 1000},
		"nothing is replaced":                           {` `, near, 1000, 1000},
		"zero is replaced":                              {`{"servers":["https://192.0.2.1:6443","https://10.96.0.1:443"],"bytes_per_second":0}`, near, 100, 100},
		"no rate is no rate":                            {"", near, 0, 0},
		"less than no rate is none":                     {"", near, -1000, 0},
		"more than any link carries is none":            {"", near, math.MaxInt64, 0},
		"what is no rate leaves the one that was there": {`{"servers":["https://192.0.2.1:6443","https://10.96.0.1:443"],"bytes_per_second":1000}`, near, math.MinInt64, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			db := openAt(t, t.TempDir(), Options{})
			if c.value != "" {
				if err := db.PutFact(t.Context(), rateFact, []byte(c.value)); err != nil {
					t.Fatal(err)
				}
			}
			putRate(t, db, c.servers, c.rate)
			wantRate(t, db, near, c.want)
		})
	}
}

func TestWhatSomebodyHasWrittenIsNoRate(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	for _, value := range []string{
		"", "fast", "125000", `"125000"`, "null", "[]", "{}", "\x00\xff",
		`{"servers":["https://198.51.100.1:6443"]}`,
		`{"bytes_per_second":125000}`,
		`{"servers":["https://198.51.100.1:6443"],"bytes_per_second":NaN}`,
		`{"servers":["https://198.51.100.1:6443"],"bytes_per_second":0}`,
		`{"servers":["https://198.51.100.1:6443"],"bytes_per_second":-125000}`,
		`{"servers":["https://198.51.100.1:6443"],"bytes_per_second":1e300}`,
		`{"servers":["https://198.51.100.1:6443"],"bytes_per_second":9223372036854775807}`,
		`{"servers":["https://198.51.100.1:6443"],"bytes_per_second":99999999999999999999}`,
		`{"servers":["https://198.51.100.1:6443"],"bytes_per_second":"125000"}`,
		`{"servers":"https://198.51.100.1:6443","bytes_per_second":125000}`,
		`{"servers":["https://198.51.100.1:6443"],"bytes_per_second":125000}}`,
	} {
		if err := db.PutFact(t.Context(), rateFact, []byte(value)); err != nil {
			t.Fatal(err)
		}
		if got, err := db.Rate(t.Context(), far); err != nil || got != 0 {
			t.Errorf("%q is a rate of %d, %v", value, got, err)
		}
	}
	if err := db.PutFact(t.Context(), rateFact, []byte(`{"bytes_per_second": 125000, "servers": ["https://198.51.100.1:6443"]}`)); err != nil {
		t.Fatal(err)
	}
	wantRate(t, db, far, 125_000)
}

// A cache of an earlier version has none.
func TestARateOutlivesTheProcess(t *testing.T) {
	dir := t.TempDir()
	db := openAt(t, dir, Options{})
	wantRate(t, db, near, 0)
	putRate(t, db, near, 4_000_000)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = openAt(t, dir, Options{})
	wantRate(t, db, near, 4_000_000)
	wantRate(t, db, far, 0)
	wantRate(t, db, nil, 0)
}

func TestAFileThatTakesThePlaceOfALostOneHasTheRate(t *testing.T) {
	for name, prepare := range map[string]func(*testing.T, *DB){
		"that this process has measured": func(t *testing.T, db *DB) { putRate(t, db, near, 4_000_000) },
		"that it has read": func(t *testing.T, db *DB) {
			if err := db.PutFact(t.Context(), rateFact, []byte(`{"servers":["https://192.0.2.1:6443","https://10.96.0.1:443"],"bytes_per_second":4000000}`)); err != nil {
				t.Fatal(err)
			}
			db.carryOver = carryOver{} // as of another process
			wantRate(t, db, near, 4_000_000)
		},
	} {
		t.Run(name, func(t *testing.T) {
			db := openAt(t, t.TempDir(), Options{})
			prepare(t, db)
			if err := os.Remove(db.Path()); err != nil {
				t.Fatal(err)
			}
			if err := db.Recreate(t.Context()); err != nil {
				t.Fatal(err)
			}
			wantRate(t, db, near, 4_000_000)
		})
	}
}

// A second pod of the workload is on the same node.
func TestACopyOfAnotherPodsCacheHasTheRate(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	db := openAt(t, from, Options{})
	record(t, db, scope("shop"), "10", object("a", 5))
	putRate(t, db, near, 4_000_000)
	if err := Seed(t.Context(), to, from); err != nil {
		t.Fatal(err)
	}
	wantRate(t, openAt(t, to, Options{}), near, 4_000_000)
}

// The servers of two clusters may have the same addresses, at different sites.
func TestARateIsOfTheClusterThatOwnsTheCache(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	bind := func(authority string) {
		t.Helper()
		if _, err := db.Bind(t.Context(), Owner{Authorities: []string{authority}}); err != nil {
			t.Fatal(err)
		}
	}
	bind("one")
	putRate(t, db, near, 4_000_000)
	bind("one")
	wantRate(t, db, near, 4_000_000)
	bind("another")
	wantRate(t, db, near, 0)
}

func TestARateOfAGroupThatFailsIsNotRecorded(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	putRate(t, db, near, 4_000_000)
	err := db.Update(t.Context(), func(tx *Tx) error {
		if err := tx.PutRate(Rate{Servers: near, BytesPerSecond: 125_000}); err != nil {
			return err
		}
		return os.ErrInvalid
	})
	if err == nil {
		t.Fatal("it has not failed")
	}
	wantRate(t, db, near, 4_000_000)
}

func FuzzRate(f *testing.F) {
	f.Add([]byte(`{"servers":["https://192.0.2.1:6443"],"bytes_per_second":125000}`))
	f.Add([]byte(`{"bytes_per_second":1e300}`))
	f.Add([]byte(`NaN`))
	f.Fuzz(func(t *testing.T, value []byte) {
		if r, ok := parseRate(value); ok && !r.valid() {
			t.Errorf("%q is %+v", value, r)
		}
	})
}

// A link that has become fast may be taken for a thin one until a list is measured again.
func TestARateIsExpectedForADay(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	db, err := Open(t.Context(), t.TempDir(), Options{Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	putRate(t, db, near, 4_000_000)
	clock.Step(rateLife/2 - time.Second)
	putRate(t, db, near, 5_000_000) // about the same: not worth a write
	wantRate(t, db, near, 4_000_000)
	clock.Step(2 * time.Second)
	putRate(t, db, near, 5_000_000)
	wantRate(t, db, near, 5_000_000)
	clock.Step(rateLife)
	wantRate(t, db, near, 5_000_000)
	clock.Step(time.Second)
	wantRate(t, db, near, 0)
	putRate(t, db, near, 5_000_000)
	clock.SetTime(clock.Now().Add(-2 * rateLife)) // the board has lost its time
	wantRate(t, db, near, 0)
}
