package upstream

import "time"

// Evidence is all that is known of whether one address can be reached. It is a value: an address
// collects it, and Verdict judges it. No request's own fate is in it, and no /readyz.
type Evidence struct {
	// Usable tells that a verified connection takes new requests.
	Usable bool
	// Heard is when the latest byte came over any connection of the address whose handshake was
	// verified. Zero: never.
	Heard time.Time
	// Failed is when the latest attempt to connect failed, after the last one that succeeded.
	// Zero: it has not.
	Failed time.Time
	// RoundTrip is the smoothed time of a round trip. Zero: not measured.
	RoundTrip time.Duration
}

// Silence is all that is known of whether one connection still carries anything.
type Silence struct {
	// Heard is when the latest byte came, or when the handshake was verified.
	Heard time.Time
	// Waiting is since when somebody waits: the oldest request without the first byte of its
	// response, or the oldest read of a body. Zero: nobody waits.
	Waiting time.Time
	// Pinged is when the PING was sent that has no answer yet. Zero: none is on its way.
	Pinged time.Time
	// Streams tells that a response is open, such as a watch's, of which nobody expects a byte.
	Streams bool
	// CanPing is false for HTTP/1.1, which has no PING.
	CanPing bool
	// RoundTrip is that of the address.
	RoundTrip time.Duration
}

// roundTripWeight is how much a new measurement counts in the smoothed round trip.
const roundTripWeight = 0.25

// smooth adds a measured round trip to the smoothed one.
func smooth(before, measured time.Duration) time.Duration {
	if before == 0 {
		return measured
	}
	return before + time.Duration(roundTripWeight*float64(measured-before))
}
