package doctor

import (
	"context"
	"strings"
	"time"

	"rockpool.dev/sidecar/inspect"
)

// Rehearsed is what a request of a program would get if the link went now.
type Rehearsed struct {
	Agent, Method, Path string
	Age                 time.Duration // of the answer
	Reason              string        // why there would be none; empty: there would be one
}

// rehearse tells which requests would fail in an outage.
func (x *examination) rehearse(ctx context.Context) {
	if x.Rehearse == nil {
		return
	}
	all, err := x.Rehearse(ctx)
	if err != nil {
		x.found(Warn, RehearsalFails, "the sidecar does not rehearse: %v", err)
		return
	}
	answered, oldest := 0, time.Duration(0)
	for _, r := range all {
		if r.Reason == "" {
			answered++
			oldest = max(oldest, r.Age)
			continue
		}
		agent, _, _ := strings.Cut(r.Agent, "/")
		if agent == "" {
			agent = "a program without a User-Agent"
		}
		x.found(Warn, WouldBeRefused, "%s: %s %s: %s", agent, r.Method, r.Path, strings.TrimPrefix(r.Reason, "rockpool: the link to the API server is down: "))
	}
	x.ok(Rehearsal, "%d of %d requests would be answered if the link went now; the oldest answer is %s old", answered, len(all), inspect.Age(oldest))
}
