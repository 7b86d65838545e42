package store

import (
	"context"
	"encoding/json"
	"slices"
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

// Rate returns the bytes a second of the recorded Rate; 0: there is none for these servers.
func (db *DB) Rate(ctx context.Context, servers []string) (int64, error) {
	value, _, err := db.Fact(ctx, rateFact)
	if err != nil {
		return 0, err
	}
	r, ok := parseRate(value)
	if !ok || !slices.Equal(r.Servers, servers) {
		return 0, nil
	}
	return r.BytesPerSecond, nil
}

// PutRate records a rate, unless it is about that which is recorded: within a factor of 1.5.
func (tx *Tx) PutRate(r Rate) error {
	if !r.valid() {
		return nil
	}
	var recorded []byte
	err := tx.tx.QueryRow(`SELECT value FROM fact WHERE key = ?`, rateFact).Scan(&recorded)
	if err := ignoreNotFound(tx.wrapErr("read fact "+rateFact, err)); err != nil {
		return err
	}
	if before, ok := parseRate(recorded); ok && slices.Equal(before.Servers, r.Servers) && !before.differs(r) {
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
