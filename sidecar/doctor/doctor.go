// Package doctor examines a sidecar from inside its pod, in the order in which a person would: are
// there requests, can programs reach the sidecar, can the sidecar reach an API server, and what is
// recorded. It reads, and changes nothing. Each finding has a code that never changes its meaning;
// docs/troubleshooting.md has a section for each.
package doctor

import (
	"context"
	"fmt"
	"time"

	"rockpool.dev/sidecar/upstream"
)

// Level says how bad a finding is.
type Level string

// The levels.
const (
	OK   Level = "OK"
	Warn Level = "WARN" // something is not as it should be, or may be intended
	Fail Level = "FAIL" // programs of the pod are affected, or will be in an outage
)

// Finding is the result of one check.
type Finding struct {
	Level Level  `json:"level"`
	Code  Code   `json:"code"`
	Fact  string `json:"fact"`
	Next  string `json:"next,omitempty"` // what to do; empty: nothing
}

// Options say what to examine.
type Options struct {
	// Listen is the address of the sidecar for programs, and Metrics that of its metrics; empty:
	// none.
	Listen, Metrics string
	// Account is the service-account directory of the kubelet, and Mirror the copy for programs.
	Account, Mirror string
	// Cache is the directory of the pod's cache; CacheError is why there is none.
	Cache      string
	CacheError error
	// Servers are the addresses of the API server, in order.
	Servers []upstream.Server
	// Records reports whether the reading of a client is recorded, by its User-Agent.
	Records func(userAgent string) bool
	// Rehearse asks the sidecar what its programs would get if the link went now. Nil: that is not
	// asked.
	Rehearse func(context.Context) ([]Rehearsed, error)
	// Version is that of this program.
	Version string
	// Timeout bounds each step that waits for a network. Zero: 5 s.
	Timeout time.Duration
	// Now is time.Now, except in tests.
	Now func() time.Time
}

// examination is what is found, and what later checks need of earlier ones.
type examination struct {
	Options
	metrics  metrics // nil: they cannot be read
	token    string
	findings []Finding
}

// Examine makes all checks.
func Examine(ctx context.Context, o Options) []Finding {
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	x := &examination{Options: o}
	for _, check := range []func(context.Context){
		x.sidecar, x.requests, x.account, x.handshake, x.addresses, x.links, x.permissions, x.cache, x.lists, x.disk, x.rehearse,
	} {
		check(ctx)
	}
	return x.findings
}

// ok notes that a check has found nothing wrong.
func (x *examination) ok(check Code, format string, args ...any) {
	x.findings = append(x.findings, Finding{Level: OK, Code: check, Fact: fmt.Sprintf(format, args...)})
}

// found notes what a check has found.
func (x *examination) found(level Level, code Code, format string, args ...any) {
	x.findings = append(x.findings, Finding{Level: level, Code: code, Fact: fmt.Sprintf(format, args...), Next: Advice[code]})
}

// Worst is the worst level of findings.
func Worst(all []Finding) Level {
	worst := OK
	for _, f := range all {
		if f.Level == Fail || f.Level == Warn && worst == OK {
			worst = f.Level
		}
	}
	return worst
}
