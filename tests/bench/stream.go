package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// stream is one open watch. Numbers identify the events.
type stream struct {
	start    time.Time
	arrived  []atomic.Int64 // ns after start, by number; 0: not arrived
	missing  atomic.Int64
	twice    atomic.Int64
	complete chan struct{}
}

func newStream(events int, start time.Time) *stream {
	s := &stream{start: start, arrived: make([]atomic.Int64, events), complete: make(chan struct{})}
	s.missing.Store(int64(events))
	return s
}

// mark precedes an event's number.
var mark = []byte(`"sent":"`)

// read reads events until the body ends. It does not decode them, so that the work of this program
// delays no event.
func (s *stream) read(body io.ReadCloser) error {
	defer body.Close()
	lines := bufio.NewReaderSize(body, 64<<10)
	for {
		line, err := lines.ReadSlice('\n')
		now := time.Since(s.start)
		if errors.Is(err, context.Canceled) || errors.Is(err, io.EOF) {
			return nil // the end of the window; missing events are counted
		}
		if err != nil {
			return err
		}
		if bytes.HasPrefix(line, []byte(`{"type":"ERROR"`)) {
			return fmt.Errorf("watch: %s", line)
		}
		_, rest, ok := bytes.Cut(line, mark)
		digits, _, _ := bytes.Cut(rest, []byte(`"`))
		number, err := strconv.Atoi(string(digits))
		if !ok || err != nil || number < 0 || number >= len(s.arrived) {
			continue // a bookmark, or an event of another window
		}
		if !s.arrived[number].CompareAndSwap(0, int64(now)) {
			s.twice.Add(1)
		} else if s.missing.Add(-1) == 0 {
			close(s.complete)
		}
	}
}

func (s *stream) faults() (lost, twice int64) { return s.missing.Load(), s.twice.Load() }

// writer changes objects with several workers. Each has its own object, so that no worker waits for
// another.
type writer struct {
	path string // of the list of the objects
	// update changes a worker's object, and returns its resourceVersion. In JSON, the object has the
	// member "sent" with the number of the event.
	update  func(ctx context.Context, hand int, sent string) (version string, err error)
	start   time.Time
	at      []int64 // ns after start, by number of the event
	version uint64  // resourceVersion of the last change
}

const hands = 24

func handName(i int) string { return fmt.Sprintf("changing-%02d", i) }

// configMaps creates ConfigMaps, and returns their writer.
func (b *bench) configMaps(ctx context.Context) (*writer, error) {
	api := b.admin.CoreV1().ConfigMaps(watchNamespace)
	var updates atomic.Int64 // an update that changes nothing is no event
	object := func(hand int, sent string) *corev1.ConfigMap {
		return &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: handName(hand)},
			Data:       map[string]string{"pad": strings.Repeat("x", 512), "sent": sent, "update": strconv.FormatInt(updates.Add(1), 10)},
		}
	}
	for i := range hands {
		if _, err := api.Create(ctx, object(i, ""), metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return nil, err
		}
	}
	return &writer{path: watchPath, update: func(ctx context.Context, hand int, sent string) (string, error) {
		got, err := api.Update(ctx, object(hand, sent), metav1.UpdateOptions{})
		if err != nil {
			return "", err
		}
		return got.ResourceVersion, nil
	}}, nil
}

// expect starts a window with a number of events.
func (w *writer) expect(events int) { w.start, w.at = time.Now(), make([]int64, events) }

func (w *writer) sent() int { return len(w.at) }

// write causes the events, one by one at the rate, or as fast as the server accepts them.
func (w *writer) write(ctx context.Context, rate int) (time.Duration, error) {
	numbers := make(chan int)
	versions := make([]uint64, hands)
	group, ctx := errgroup.WithContext(ctx)
	for hand := range hands {
		group.Go(func() error {
			for number := range numbers {
				w.at[number] = int64(time.Since(w.start))
				version, err := w.update(ctx, hand, strconv.Itoa(number))
				if err != nil {
					return err
				}
				if versions[hand], err = strconv.ParseUint(version, 10, 64); err != nil {
					return err
				}
			}
			return nil
		})
	}
	begin := time.Now()
	group.Go(func() error {
		defer close(numbers)
		for number := range w.at {
			due := begin.Add(time.Duration(number) * time.Second / time.Duration(rate))
			if err := until(ctx, due); err != nil {
				return err
			}
			select {
			case numbers <- number:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	err := group.Wait()
	for _, v := range versions {
		w.version = max(w.version, v)
	}
	return time.Since(begin), err
}

// until waits until a time.
func until(ctx context.Context, due time.Time) error {
	d := time.Until(due)
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
