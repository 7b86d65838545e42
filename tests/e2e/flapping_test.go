package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// flapping is how long the link flaps, once a second.
const flapping = 60 * time.Second

// TestAFlappingLinkNeverGivesAWrongAnswer has a writer that counts in two ConfigMaps, in "ahead"
// always before "behind", so that a list shows whether the server ever had that state.
func TestAFlappingLinkNeverGivesAWrongAnswer(t *testing.T) {
	t.Parallel() // it takes a minute and little processor time
	s := newSite(t)
	w := &counter{site: s}
	w.count()
	p := s.pod() // with an informer, whose watch is also recorded
	p.sees("synced")
	x := p.poll(20*time.Millisecond, getRequest{Target: s.configMaps() + "/ahead"}, getRequest{Target: s.configMaps()})
	defer x.stop()

	ctx, cancel := context.WithTimeout(s.ctx, flapping)
	defer cancel()
	flaps := make(chan int, 1)
	go func() { flaps <- s.flap(ctx) }()
	for each := time.NewTicker(100 * time.Millisecond); ctx.Err() == nil; {
		w.count()
		select {
		case <-each.C:
		case <-ctx.Done():
			each.Stop()
		}
	}
	n := <-flaps
	w.count()
	last := w.times[len(w.times)-1]
	x.until("the present state, from the API server", last, func(f getResponse) bool { return f.Question == 1 && f.Status == http.StatusOK && !f.cached() })
	x.stop()
	w.check(t, x.responses(), n)
}

// flap breaks and restores the link once a second until ctx ends. It returns how often it has
// broken the link.
func (s *site) flap(ctx context.Context) (broken int) {
	defer s.Link.Restore()
	faults := []func(){s.Link.Cut, s.Link.BlackHole, s.Link.Reset, func() { _ = s.Link.Drop() }} // BlackHole if the machine does not allow it
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for down := true; ctx.Err() == nil; down = !down {
		if down {
			faults[broken%len(faults)]()
			broken++
		} else {
			s.Link.Restore()
		}
		select {
		case <-second.C:
		case <-ctx.Done():
		}
	}
	return broken
}

// counter writes numbers and notes the times.
type counter struct {
	*site
	times []time.Time // by number: when it was in both ConfigMaps
}

func (c *counter) count() {
	value := strconv.Itoa(len(c.times))
	for _, name := range []string{"ahead", "behind"} {
		c.configMap(name, value)
	}
	c.times = append(c.times, time.Now())
}

// check checks each answer: the server has had that state; it is not older than what the client has
// seen; and an answer of the API server has the number written before the request.
func (c *counter) check(t *testing.T, responses []getResponse, flaps int) {
	t.Helper()
	seen := map[int]int{} // by question
	served, cached, refused, truncated := 0, 0, 0, 0
	for _, f := range responses {
		switch {
		case f.Status == http.StatusServiceUnavailable:
			refused++
			continue
		case f.truncated():
			truncated++
			continue
		}
		ahead, err := number(f)
		switch {
		case err != nil:
			t.Errorf("question %d at %s: %v", f.Question, f.Started, err)
			continue
		case ahead < seen[f.Question]:
			t.Errorf("question %d: %d after %d, cached: %t", f.Question, ahead, seen[f.Question], f.cached())
		case ahead >= len(c.times):
			t.Errorf("question %d: %d was never written", f.Question, ahead)
		case !f.cached() && ahead+1 < len(c.times) && c.times[ahead+1].Before(f.Started):
			t.Errorf("question %d: the API server's answer has %d, which is older than the request", f.Question, ahead)
		case f.Question == 0 && ahead < seen[1]:
			t.Errorf("the object has %d, but an earlier list had %d; cached: %t", ahead, seen[1], f.cached())
		}
		seen[f.Question] = ahead
		if served++; f.cached() {
			cached++
		}
	}
	t.Logf("%d flaps, %d numbers written: %d answers, %d of them from the cache, %d refusals, %d truncated answers",
		flaps, len(c.times), served, cached, refused, truncated)
	if truncated > flaps { // the client sends one request at a time
		t.Errorf("%d truncated answers in %d flaps", truncated, flaps)
	}
	if cached == 0 || cached == served {
		t.Errorf("%d of %d answers are from the cache, so this test shows nothing", cached, served)
	}
}

// number is the value of "ahead" in an answer.
func number(f getResponse) (int, error) {
	if f.Status != http.StatusOK {
		return 0, fmt.Errorf("%d %s", f.Status, f.text())
	}
	if f.Question == 0 {
		var cm corev1.ConfigMap
		if err := json.Unmarshal(f.Body, &cm); err != nil {
			return 0, err
		}
		return strconv.Atoi(cm.Data["value"])
	}
	var list corev1.ConfigMapList
	if err := json.Unmarshal(f.Body, &list); err != nil {
		return 0, err
	}
	value := map[string]int{}
	for _, cm := range list.Items {
		if n, err := strconv.Atoi(cm.Data["value"]); err == nil {
			value[cm.Name] = n
		}
	}
	ahead, behind := value["ahead"], value["behind"]
	if len(value) != 2 || ahead != behind && ahead != behind+1 {
		return 0, fmt.Errorf("the server never had this list: %v", value)
	}
	return ahead, nil
}
