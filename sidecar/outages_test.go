package main

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/outage"
	"rockpool.dev/sidecar/tally"
	"rockpool.dev/sidecar/upstream"
	"rockpool.dev/store"
)

// inAnOutage returns a sidecar whose link is down, and what becomes of the outage.
func inAnOutage() (s *sidecar, ended *outage.Outage) {
	ended = &outage.Outage{}
	s = &sidecar{log: zap.NewNop(), started: time.Now()}
	s.outage = outage.New(outage.Options{
		Waiting: func() int { return 0 }, Ended: func(o outage.Outage) { *ended = o },
		Log: tally.New(zap.NewNop(), clock.RealClock{}), Clock: clock.RealClock{},
	})
	return s, ended
}

func TestWhatCountsAsAnsweredOffline(t *testing.T) {
	parse := func(method, url string) *request.Info {
		r, err := http.NewRequestWithContext(t.Context(), method, "https://api"+url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		info := request.Parse(r)
		return &info
	}
	read, write := parse("GET", "/api/v1/pods"), parse("POST", "/api/v1/namespaces/a/events")
	review := parse("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
	aged := func(age string) *http.Response {
		return &http.Response{StatusCode: 200, Header: http.Header{"Age": {age}}}
	}
	for _, test := range []struct {
		name string
		info *request.Info
		resp *http.Response
		err  error
		want outage.Outage
	}{
		{"a list from the cache", read, aged("42"), nil, outage.Outage{Answered: 1, Oldest: 42 * time.Second}},
		{"a watch from the cache", parse("GET", "/api/v1/pods?watch=true"), aged("7"), nil, outage.Outage{Answered: 1, Oldest: 7 * time.Second}},
		{"an answer without an age", read, &http.Response{StatusCode: 200, Header: http.Header{}}, nil, outage.Outage{Answered: 1}},
		{"a review from the cache", review, aged("3"), nil, outage.Outage{Answered: 1, Oldest: 3 * time.Second}},
		{"an object that is proven to be absent", read, nil, apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, "a"), outage.Outage{Answered: 1}},
		{"what is not recorded", read, nil, apierrors.NewServiceUnavailable("not recorded"), outage.Outage{Refused: 1}},
		{"a caller who cannot be identified", read, nil, apierrors.NewUnauthorized("who?"), outage.Outage{Refused: 1}},
		{"any other error", read, nil, errors.New("broken"), outage.Outage{Refused: 1}},
		{"an Event that is queued", write, &http.Response{StatusCode: 201, Header: http.Header{}}, nil, outage.Outage{Accepted: 1}},
		{"a write that is refused", write, nil, apierrors.NewServiceUnavailable("down"), outage.Outage{Refused: 1}},
		{"a lock that another holds", write, nil, apierrors.NewConflict(schema.GroupResource{Resource: "leases"}, "a", errors.New("held")), outage.Outage{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, ended := inAnOutage()
			s.outage.Down("refused")
			s.answeredOffline(test.info, test.resp, test.err)
			s.outage.Up()
			got := outage.Outage{Answered: ended.Answered, Accepted: ended.Accepted, Refused: ended.Refused, Oldest: ended.Oldest}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestAnOutageCountsFromBeforeARestart writes the history of the link as an earlier run has left it.
func TestAnOutageCountsFromBeforeARestart(t *testing.T) {
	for _, test := range []struct {
		name   string
		states []upstream.State
		before bool
	}{
		{"the earlier run was offline", []upstream.State{upstream.Online, upstream.Suspect, upstream.Offline}, true},
		{"the earlier run was online again", []upstream.State{upstream.Offline, upstream.Online}, false},
		{"there was no earlier run", nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, ended := inAnOutage()
			db, err := store.Open(t.Context(), t.TempDir(), store.Options{MaxSize: 8 << 20})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			for _, state := range test.states {
				if err := db.Update(t.Context(), func(tx *store.Tx) error { return tx.PutLink(state.String(), "silent") }); err != nil {
					t.Fatal(err)
				}
			}
			s.disk = &cache.Disk{Cache: cache.New(db, "disk", zap.NewNop())}
			s.started = time.Now().Add(time.Hour) // the history is older
			before := time.Now()
			s.resumeOutage(context.Background())
			s.outage.Down("refused")
			s.outage.Up()
			if was := ended.Evidence == "silent" && !ended.Lost.After(before); was != test.before {
				t.Errorf("%+v", ended)
			}
		})
	}
}
