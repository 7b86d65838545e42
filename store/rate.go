package store

import (
	"context"
	"encoding/json"
	"slices"
	"time"
)

const (
	// rateFact is the key of the Rate in the table fact, where it is JSON.
	rateFact = "link-rate"
	// leastRate and mostRate bound what a link may carry, in bytes a second. A row with anything
	// else was not written by PutRate.
	leastRate = 100
	mostRate  = 100_000_000_000
	// rateChange is the factor by which a rate must have changed to be written again.
	rateChange = 1.5
	// rateLife is for how long a rate may be expected. While lists are answered from the cache, none
	// shows that a link has become fast. One that is half as old is written again.
	rateLife = 24 * time.Hour
)

// Rate is what the link to some API servers has carried when a list was last measured. It is only
// what the next process may expect: the link may be another one by then.
type Rate struct {
	// Servers are the URLs of the API servers, in the order in which they are chosen.
	Servers []string `json:"servers"`
	// BytesPerSecond is of payloads, so that compression on the link counts as speed.
	BytesPerSecond int64 `json:"bytes_per_second"`
}

func (r Rate) valid() bool { return r.BytesPerSecond >= leastRate && r.BytesPerSecond <= mostRate }

// parseRate reads the value of the fact. Somebody may have written it by hand.
func parseRate(value []byte) (r Rate, ok bool) {
	if err := json.Unmarshal(value, &r); err != nil {
		return Rate{}, false
	}
	return r, r.valid()
}

// Rate returns the bytes a second of the recorded Rate; 0: there is none for these servers that is at
// most a day old.
func (db *DB) Rate(ctx context.Context, servers []string) (int64, error) {
	value, at, err := db.Fact(ctx, rateFact)
	if err != nil {
		return 0, err
	}
	r, ok := parseRate(value)
	if !ok || !slices.Equal(r.Servers, servers) || age(at.UnixMilli(), db.nowMilli()) > rateLife {
		return 0, nil
	}
	return r.BytesPerSecond, nil
}

// age is the time between two times in milliseconds. A clock that has jumped back makes a row old, too.
func age(at, now int64) time.Duration { return (time.Duration(now-at) * time.Millisecond).Abs() }

// PutRate records a rate, unless it is about that which was recorded in the last twelve hours: within
// a factor of 1.5.
func (tx *Tx) PutRate(r Rate) error {
	if !r.valid() {
		return nil
	}
	var recorded fact
	err := tx.tx.QueryRow(`SELECT value, updated_at FROM fact WHERE key = ?`, rateFact).Scan(&recorded.value, &recorded.at)
	if err := ignoreNotFound(tx.wrapErr("read fact "+rateFact, err)); err != nil {
		return err
	}
	before, ok := parseRate(recorded.value)
	if ok && slices.Equal(before.Servers, r.Servers) && !before.differs(r) && age(recorded.at, tx.nowMilli()) < rateLife/2 {
		return nil
	}
	value, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f := fact{tx.nowMilli(), value}
	tx.db.carryOver.put(rateFact, f)
	_, err = tx.tx.Exec(putFact, rateFact, f.at, f.value)
	return tx.wrapErr("put fact "+rateFact, err)
}

// differs reports whether a rate has changed by more than rateChange.
func (r Rate) differs(now Rate) bool {
	low, high := min(r.BytesPerSecond, now.BytesPerSecond), max(r.BytesPerSecond, now.BytesPerSecond)
	return float64(high) > rateChange*float64(low)
}
