package upstream

import "time"

// Evidence is all that is known of whether one address can be reached. It is a value: an address
// collects it, and Verdict judges it. Neither /readyz nor the answer to a request is part of it.
type Evidence struct {
	// Usable tells that a verified connection takes new requests.
	Usable bool
	// Open tells that an HTTP/2 connection is open, such as one that takes no new requests after a
	// GOAWAY, or because all its streams are taken. It is asked by PINGs, and ends if it is dead.
	Open bool
	// Heard is when the latest byte came over any connection of the address whose handshake was
	// verified. Zero: never.
	Heard time.Time
	// Failed is when the latest attempt to connect failed. It is zero if none has failed since the
	// last one that succeeded.
	Failed time.Time
	// RoundTrip is the smoothed time of a round trip. Zero: not measured.
	RoundTrip time.Duration
}

// Silence is all that is known of whether one connection still carries anything.
type Silence struct {
	// Heard is when the latest byte came, or when the handshake was verified.
	Heard time.Time
	// Waiting is since when somebody waits, for the first byte of a response or for more of its
	// body: of all who wait, the one who asks first. Zero: nobody waits.
	Waiting time.Time
	// Pinged is when the PING was sent that has no answer yet. Zero: none is on its way.
	Pinged time.Time
	// Streams tells that a response is open, such as a watch's.
	Streams bool
	// Upload is how long the body that somebody who waits has sent may be on its way although all
	// of it is acknowledged. A proxy on the way may have done that, and the PING waits behind the
	// body in a queue of which the kernel knows nothing.
	Upload time.Duration
	// CanPing is false for HTTP/1.1, which has no PING.
	CanPing bool
	// RoundTrip is that of the address.
	RoundTrip time.Duration
}

// smooth adds a measured round trip to the smoothed one. A link that became faster counts more: a
// measurement can be too long, because a segment was lost, but not too short.
func smooth(before, measured time.Duration) time.Duration {
	switch {
	case before == 0:
		return measured
	case measured < before:
		return (before + measured) / 2
	}
	return before + (measured-before)/4
}
