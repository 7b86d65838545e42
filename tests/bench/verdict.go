package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"rockpool.dev/tests/bed/link"
)

// The source of an answer.
const (
	fromCache  = true
	fromServer = false
)

// wakeInterval is the shortest time between two attempts of the sidecar to reach the API server that
// requests cause. When the link is back while a program asks, the sidecar should notice it
// within that time.
const wakeInterval = 2 * time.Second

// outage is the minimum time that the link stays broken after the first cached answer: the sidecar has
// noticed it then.
const outage = 3 * time.Second

// fault is a failure of the link. target is the target in ms for the first cached answer.
type fault struct {
	name   string
	cause  func()
	target float64
}

// verdicts measures how soon the sidecar notices that its link fails and returns. The client sends
// requests without a pause.
func (b *bench) verdicts(ctx context.Context, t *target, wan *link.Link, f fault) error {
	var first, back []float64
	p50, p99 := series{}, series{}
	for range min(b.rounds, 5) {
		if _, _, err := t.answer(ctx, fromServer); err != nil {
			return err
		}
		f.cause()
		took, _, err := t.answer(ctx, fromCache)
		if err != nil {
			return err
		}
		first = append(first, took)
		var later []float64
		// Up to an interval longer, so that the link comes back at any time between two attempts.
		for end := time.Now().Add(outage + rand.N(wakeInterval)); time.Now().Before(end); {
			_, took, err := t.answer(ctx, fromCache)
			if err != nil {
				return err
			}
			later = append(later, took)
		}
		p50.add("on", percentile(later, 50))
		p99.add("on", percentile(later, 99))
		wan.Restore()
		if took, _, err = t.answer(ctx, fromServer); err != nil {
			return err
		}
		back = append(back, took)
	}
	what := "link " + f.name
	b.report.longest(what, "first cached answer, longest", "ms", first).atMost(f.target, ofOn)
	b.report.medians(what, "later cached answers, p50", "ms", p50)
	b.report.medians(what, "later cached answers, p99", "ms", p99).atMost(10, ofOn)
	b.report.longest(what, "back: first answer of the API server, longest", "ms", back).atMost(ms(wakeInterval), ofOn)
	return nil
}

// answer sends requests until one is answered from the wanted source. It returns the durations of
// all requests together and of the last one, in ms.
func (t *target) answer(ctx context.Context, cached bool) (all, last float64, err error) {
	start := time.Now()
	var failure error
	err = wait.PollUntilContextTimeout(ctx, time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		asked := time.Now()
		response, err := t.open(ctx, t.client, smallPath, asJSON)
		if failure = err; err != nil {
			return false, nil
		}
		defer response.Body.Close()
		if _, failure = io.Copy(io.Discard, response.Body); failure != nil {
			return false, nil
		}
		last = ms(time.Since(asked))
		return (response.Header.Get("Cache-Status") != "") == cached, nil
	})
	if err != nil {
		err = fmt.Errorf("wait for an answer (from the cache: %t): %w: %w", cached, err, failure)
	}
	return ms(time.Since(start)), last, err
}
