package upstream

import (
	"errors"
	"net/http"
	"time"
)

// maxPatient bounds the requests that wait for the link at the same time. Their bodies are bounded
// by maxKept.
const maxPatient = 256

// patientInterval is how often a request that waits for the link is tried again, and with it the
// addresses: a link that flaps may be back for a second only.
const patientInterval = 250 * time.Millisecond

// Patiently is RoundTrip for a request that can wait. If nothing of the request could be sent, it
// waits for the link and is tried again, for as long as patience says. It does not wait in an outage
// that has lasted longer than that, and what may have arrived is never sent again.
func (u *Upstream) Patiently(r *http.Request, patience time.Duration) (*http.Response, error) {
	return u.roundTrip(r, false, patience)
}

// isOut reports whether the link has been down for longer than a request can wait.
func (u *Upstream) isOut(patience time.Duration) bool {
	if u.State() != Offline {
		return false
	}
	u.eventMu.Lock()
	defer u.eventMu.Unlock()
	return u.clock.Since(u.since) >= patience
}

// pause waits a little before a request that has failed with err is tried again. It reports false
// if that must not or need not be done.
func (u *Upstream) pause(r *http.Request, body *upload, err error, deadline time.Time) bool {
	var link *LinkError
	left := deadline.Sub(u.clock.Now())
	if left <= 0 || !errors.As(err, &link) || link.Sent || !body.repeatable() {
		return false
	}
	defer u.patient.Add(-1)
	if u.patient.Add(1) > maxPatient {
		return false
	}
	u.Wake()
	var online <-chan struct{} // while the link is suspect, only an attempt can tell
	u.mu.Lock()
	if !u.Online() {
		online = u.online
	}
	u.mu.Unlock()
	timer := u.clock.NewTimer(min(left, patientInterval))
	defer timer.Stop()
	select {
	case <-timer.C():
	case <-online:
	case <-r.Context().Done():
		return false
	}
	return true
}
