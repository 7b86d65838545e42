package main

import (
	"context"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"

	"go.uber.org/zap"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/outage"
	"rockpool.dev/sidecar/upstream"
)

// newOutage makes the part that counts what happens in an outage.
func (s *sidecar) newOutage() *outage.Keeper {
	return outage.New(outage.Options{
		Waiting: s.waitingWatches, Ended: s.reporter.Outage, Log: s.repeated, Clock: clock.RealClock{},
	})
}

// waitingWatches is how many watches wait for the link, or for their turn after it is back.
func (s *sidecar) waitingWatches() (n int) {
	for _, w := range s.dispatcher.OpenWatches() {
		if w.State == "waiting" {
			n++
		}
	}
	return n
}

// answeredOffline counts a request that was answered without the API server, or refused.
func (s *sidecar) answeredOffline(info *request.Info, resp *http.Response, err error) {
	status, _ := err.(apierrors.APIStatus)
	switch {
	case err != nil && (status == nil || status.Status().Code >= http.StatusInternalServerError || status.Status().Code == http.StatusUnauthorized):
		s.outage.Refused()
	case info.IsRead() || info.IsReview():
		var age time.Duration
		if err == nil { // otherwise it is proven that there is no such object
			seconds, _ := strconv.Atoi(resp.Header.Get("Age")) // 0: the answer has no age
			age = time.Duration(seconds) * time.Second
		}
		s.outage.Answered(age, func() []zap.Field {
			return []zap.Field{zap.String("verb", info.Verb), zap.String("resource", resource(info)), zap.String("namespace", info.Namespace)}
		})
	case err == nil:
		s.outage.Accepted()
	}
}

// resumeOutage finds out whether the link was down when an earlier run ended.
func (s *sidecar) resumeOutage(ctx context.Context) {
	db := s.disk.Store()
	if db == nil {
		return
	}
	changes, err := db.Links(ctx, time.Time{})
	if err != nil {
		s.log.Warn("cannot read the history of the link; an outage counts from the start of the sidecar", zap.Error(err))
		return
	}
	last := -1
	for i, c := range changes {
		if c.At.Before(s.started) {
			last = i
		}
	}
	if last >= 0 && changes[last].State == upstream.Offline.String() {
		s.outage.Resume(changes[last].At, changes[last].Reason)
	}
}
