package link

import (
	"slices"
	"testing"
	"time"
)

// wire is the size on the wire of a chunk that is one full packet.
const wire = segmentSize + headerSize

// A step happens at a time on the fake clock: a chunk enters, or the shape changes.
type step struct {
	at    time.Duration
	size  int
	lost  bool
	shape *Shape
}

func TestAScheduleSaysWhenChunksArrive(t *testing.T) {
	const ms, second = time.Millisecond, time.Second
	full := func(at time.Duration) step { return step{at: at, size: segmentSize} }
	// A full packet takes 100 ms.
	thin := Shape{Rate: 10 * wire, Queue: 4 * wire, RoundTrip: 400 * ms}
	for _, c := range []struct {
		name  string
		shape Shape
		steps []step
		want  []time.Duration // arrivals of the chunks
	}{
		{"a link without a shape delivers at once", Shape{}, []step{full(0), full(5 * ms)}, []time.Duration{0, 5 * ms}},
		{"a delay is half of the round trip", Shape{RoundTrip: 300 * ms}, []step{full(0), full(ms)}, []time.Duration{150 * ms, 151 * ms}},
		{"a delay alone does not make bytes wait for each other", Shape{RoundTrip: 2 * second}, []step{full(0), full(0)}, []time.Duration{second, second}},
		{"an idle link carries a packet in its own time", thin, []step{full(0), full(second)}, []time.Duration{300 * ms, 1300 * ms}},
		{"packets wait for those before them", thin, []step{full(0), full(0), full(50 * ms)}, []time.Duration{300 * ms, 400 * ms, 500 * ms}},
		{"idle time is not saved up for a burst", thin, []step{full(10 * second), full(10 * second)}, []time.Duration{10300 * ms, 10400 * ms}},
		{"a small packet waits behind the bulk, whoever sent it", thin, []step{full(0), full(0), full(0), {at: 0, size: 98}}, []time.Duration{300 * ms, 400 * ms, 500 * ms, 510 * ms}},
		{"a chunk of several packets has several headers", thin, []step{{size: 3*segmentSize - 1448 + 98}}, []time.Duration{200*ms + 210*ms}},
		{"a packet without data has a header", Shape{Rate: headerSize}, []step{{size: 0}}, []time.Duration{second}},
		{"a lost packet is late by 1.5 round trips", thin, []step{{size: segmentSize, lost: true}, full(0)}, []time.Duration{900 * ms, 400 * ms}},
		{"a lost packet is late by 200 ms at least", Shape{RoundTrip: 10 * ms}, []step{{lost: true}}, []time.Duration{205 * ms}},
		{"the queue drains at the new rate", thin, []step{full(0), full(0), {at: 50 * ms, shape: &Shape{Rate: 5 * wire, RoundTrip: 400 * ms}}, full(50 * ms)}, []time.Duration{350 * ms, 550 * ms, 750 * ms}},
		{"the queue empties when the rate ends", thin, []step{full(0), full(0), {at: 50 * ms, shape: &Shape{}}, full(50 * ms)}, []time.Duration{250 * ms, 250 * ms, 50 * ms}},
		{"what has left the queue is not held back again", thin, []step{full(0), {at: 150 * ms, shape: &Shape{Rate: 1}}}, []time.Duration{300 * ms}},
		{"a rate begins with an empty queue", Shape{}, []step{full(0), {at: second, shape: &thin}, full(second)}, []time.Duration{0, 1300 * ms}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := schedule{shape: c.shape}
			var passages []*passage
			for _, step := range c.steps {
				if step.shape != nil {
					s.reshape(step.at, *step.shape)
					continue
				}
				passages = append(passages, s.enter(step.at, step.size, step.lost))
			}
			var got []time.Duration
			for _, p := range passages {
				got = append(got, p.due().Round(time.Microsecond))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("arrivals %v, want %v", got, c.want)
			}
		})
	}
}

func TestASenderWaitsWhileTheQueueIsFull(t *testing.T) {
	const ms = time.Millisecond
	s := schedule{shape: Shape{Rate: 10 * wire, Queue: 4 * wire}}
	check := func(now, want time.Duration) {
		t.Helper()
		if got := s.full(now).Round(time.Microsecond); got != want {
			t.Errorf("at %s: wait for %s, want %s", now, got, want)
		}
	}
	check(0, 0)
	for range 4 {
		s.enter(0, segmentSize, false)
	}
	check(0, 0)
	s.enter(0, segmentSize, false)
	check(0, 100*ms)
	check(60*ms, 40*ms)
	check(100*ms, 0)
	s.enter(100*ms, 3*segmentSize, false)
	check(100*ms, 300*ms)
	s.reshape(100*ms, Shape{Rate: 20 * wire, Queue: 4 * wire})
	check(100*ms, 150*ms)
	s.reshape(100*ms, Shape{})
	check(100*ms, 0)

	s = schedule{shape: Shape{Rate: DefaultQueue}}
	s.enter(0, 2*DefaultQueue, false)
	if wait := s.full(0); wait < time.Second || wait > 1100*ms {
		t.Errorf("a queue of the default length: wait for %s, want a second and the headers", wait)
	}
}

func TestAScheduleForgetsWhatHasLeftTheQueue(t *testing.T) {
	s := schedule{shape: Shape{Rate: 1000 * wire}}
	for i := range 10_000 {
		s.enter(time.Duration(i)*time.Millisecond, segmentSize, false)
	}
	if n := len(s.queue); n > 2 {
		t.Errorf("%d chunks are kept of a queue that holds one", n)
	}
	s.enter(time.Hour, segmentSize, false)
	s.enter(time.Hour, segmentSize, false)
	s.clear()
	if p := s.enter(time.Hour, segmentSize, false); p.due() != time.Hour+time.Millisecond {
		t.Errorf("after clear a packet arrives at %s", p.due())
	}
}

func TestTheWindowHoldsAFullQueueAndTheDelay(t *testing.T) {
	for _, c := range []struct {
		shape Shape
		want  int
	}{
		{Shape{}, 8 << 20},
		{Shape{RoundTrip: time.Hour, Loss: 1}, 8 << 20},
		{Shape{Rate: 125_000}, DefaultQueue + 64<<10},
		{Shape{Rate: 125_000, Queue: 256 << 10, RoundTrip: 400 * time.Millisecond}, 256<<10 + 50_000 + 64<<10},
		{Shape{Rate: 125_000, Loss: 0.01}, DefaultQueue + 25_000 + 64<<10},
		{Shape{Rate: 1 << 30, RoundTrip: time.Second}, 8 << 20},
	} {
		if got := c.shape.window(); got != c.want {
			t.Errorf("%+v: %d bytes, want %d", c.shape, got, c.want)
		}
	}
}
