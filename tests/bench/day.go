package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/tests/bed/link"
)

// A workload is what a program does all day.
type workload struct {
	name     string
	settings []string // more flags of the sidecar
	// budget is a cache.write-budget in bytes; 0: none.
	budget int64
	// begin opens watches, and returns what is repeated, once in an interval.
	begin    func(context.Context, *remote, *sync.WaitGroup) error
	interval time.Duration
	again    func(context.Context, *remote) error
	// linkMB is how much the link may carry a day, in MB, linkPart is the same as a part of direct
	// access, and flashMB is how much may be written to the disk; negative: no target.
	linkMB, linkPart, flashMB float64
}

const (
	dayNamespaces = 20
	// dayObjects, of 1 KiB each, take longer over the link than a proof that none has changed.
	dayObjects = 500
	dayPath    = "/api/v1/namespaces/" + someNamespace + "/configmaps?labelSelector=day"
)

func dayNamespace(i int) string { return fmt.Sprintf("day-%d", i) }

// watchAll opens watches as client-go does, and reads them to their end.
func watchAll(ctx context.Context, r *remote, readers *sync.WaitGroup, paths ...string) error {
	for _, path := range paths {
		if _, err := r.fetch(ctx, r.client, path, asJSON, nil); err != nil {
			return err
		}
		resp, err := r.open(ctx, r.client, path+"?watch=true&allowWatchBookmarks=true&resourceVersion=0", asJSON)
		if err != nil {
			return err
		}
		readers.Go(func() {
			defer resp.Body.Close()
			_, _ = io.Copy(io.Discard, resp.Body) // it ends with ctx
		})
	}
	return nil
}

// workloads are the four of a day, one with a budget and one with online.reads=save beside. The list
// of the last two does not change.
func workloads() []workload {
	busy := func(ctx context.Context, r *remote, readers *sync.WaitGroup) error {
		var paths []string
		for i := range dayNamespaces {
			paths = append(paths, "/api/v1/namespaces/"+dayNamespace(i)+"/configmaps")
		}
		return watchAll(ctx, r, readers, paths...)
	}
	list := func(ctx context.Context, r *remote) error {
		_, err := r.fetch(ctx, r.client, dayPath, asJSON, nil)
		return err
	}
	return []workload{
		{name: "no stream, no request", linkMB: 0, linkPart: -1, flashMB: 1},
		{name: "3 quiet watches", linkMB: 1, linkPart: -1, flashMB: 10, begin: func(ctx context.Context, r *remote, readers *sync.WaitGroup) error {
			of := "/api/v1/namespaces/" + someNamespace + "/"
			return watchAll(ctx, r, readers, of+"configmaps", of+"services", of+"endpoints")
		}},
		{name: "20 informers, one change of 1 KiB a second", linkMB: -1, linkPart: 1.05, flashMB: -1, begin: busy},
		{name: "the same with cache.write-budget=10Mi", budget: 10 << 20, linkMB: -1, linkPart: 1.05, flashMB: -1, begin: busy},
		{name: fmt.Sprintf("a list of %d each 10 s, unchanged", dayObjects), settings: []string{"--online.reads", readsPass}, linkMB: -1, linkPart: 1.05, flashMB: 1, interval: 10 * time.Second, again: list},
		{name: "the same with online.reads=save", settings: []string{"--online.reads", readsSave}, linkMB: -1, linkPart: 0.1, flashMB: 1, interval: 10 * time.Second, again: list},
	}
}

// day counts what a day costs: the link both ways, and the disk. Each workload has a link of its own
// directly and through a sidecar, and a rate at which a list takes longer than a proof that it has not
// changed. All run for a while at the same time, and what they cost is
// multiplied.
func (b *bench) day(ctx context.Context) (err error) {
	window := 10 * time.Minute
	if b.short {
		window = 3 * time.Minute
	}
	aDay := float64(24*time.Hour) / float64(window)
	if err := b.prepareDay(ctx); err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stop()
	all := workloads()
	of := make([][]*remote, len(all))
	for i, w := range all {
		if of[i], err = b.remotes(ctx, fmt.Sprint("day-", i), w.flags()...); err != nil {
			return err
		}
		for _, r := range of[i] {
			defer r.close()
			r.wan.SetShape(thinShape, thinShape)
			if w.begin != nil {
				if err := w.begin(running, r, &readers); err != nil {
					return err
				}
			}
		}
	}
	// Idle connections end, first lists are recorded, and the budget's burst is used up.
	if err := b.passDay(ctx, 3*time.Minute, all, of); err != nil {
		return err
	}
	marks, err := markDay(of)
	if err != nil {
		return err
	}
	if err := b.passDay(ctx, window, all, of); err != nil {
		return err
	}
	ends, err := markDay(of)
	if err != nil {
		return err
	}
	for i, w := range all {
		wire, disk := series{}, series{}
		var lasted time.Duration
		var written int64
		for _, r := range of[i] {
			wire.add(r.name, float64(ends[r].wire.Since(marks[r].wire).Wire())*aDay/1e6)
			if r.sidecar != nil {
				disk.add(r.name, float64(ends[r].disk-marks[r].disk)*aDay/1e6)
				lasted, written = time.Since(r.sidecar.started), ends[r].disk
			}
		}
		b.report.day(w, wire, disk)
		if w.budget > 0 {
			part := firstDay(w.budget, written, lasted)
			b.report.note("a day, "+w.name, "first 24 hours, the rest of them at the budget's pace, of the budget", "x", none, part).atMost(1.05, ofOn)
		}
	}
	return nil
}

// dayMark is what a remote has cost so far.
type dayMark struct {
	wire link.Stats
	disk int64
}

func markDay(of [][]*remote) (map[*remote]dayMark, error) {
	marks := map[*remote]dayMark{}
	for _, r := range slices.Concat(of...) {
		m := dayMark{wire: r.wan.Stats()}
		if r.sidecar != nil {
			var err error
			if m.disk, err = writtenBy(r.sidecar.pid()); err != nil {
				return nil, err
			}
		}
		marks[r] = m
	}
	return marks, nil
}

// day adds the rows of a workload, in MB a day.
func (r *report) day(w workload, wire, disk series) {
	what := "a day, " + w.name
	line := r.compare(what, "bytes on the link, both ways", "MB", wire)
	switch {
	case w.linkMB >= 0:
		line.atMost(w.linkMB, ofOn)
	case w.linkPart >= 0:
		line.atMost(w.linkPart, ofRatio)
	}
	line = r.compare(what, "bytes written to the disk", "MB", disk)
	if w.flashMB >= 0 {
		line.atMost(w.flashMB, ofOn)
	}
}

// firstDay is what is written in 24 hours from the start, as a part of the budget, if so much was
// written in a time since the start. The rest is not measured: one group is a large part of what the
// budget allows in ten minutes, which is nine tenths of it evenly over the day. So the result shows
// whether the start has kept to the other tenth.
func firstDay(budget, written int64, since time.Duration) float64 {
	return float64(written)/float64(budget) + 0.9*(1-since.Hours()/24)
}

// flags are those of the workload's sidecar.
func (w *workload) flags() []string {
	if w.budget == 0 {
		return w.settings
	}
	return append([]string{"--cache.write-budget", strconv.FormatInt(w.budget, 10)}, w.settings...)
}

// passDay has the programs do what they repeat, and changes one object a second.
func (b *bench) passDay(ctx context.Context, window time.Duration, all []workload, of [][]*remote) error {
	ctx, cancel := context.WithTimeout(ctx, window)
	defer cancel()
	var failed error
	var mu sync.Mutex
	var repeating sync.WaitGroup
	each := func(interval time.Duration, do func(i int) error) {
		repeating.Go(func() {
			begun := time.Now()
			for i := 0; until(ctx, begun.Add(time.Duration(i+1)*interval)) == nil; i++ {
				if err := do(i); err != nil && ctx.Err() == nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
				}
			}
		})
	}
	for i, w := range all {
		if w.again != nil {
			for _, r := range of[i] {
				each(w.interval, func(int) error { return w.again(ctx, r) })
			}
		}
	}
	each(time.Second, func(i int) error { return b.change(ctx, dayNamespace(i%dayNamespaces)) })
	repeating.Wait()
	return failed
}

// prepareDay makes the objects.
func (b *bench) prepareDay(ctx context.Context) error {
	api := b.admin.CoreV1().ConfigMaps(someNamespace)
	for i := range dayObjects {
		object := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("day-", i), Labels: map[string]string{"day": ""}},
			Data:       map[string]string{"text": bulkText()},
		}
		if _, err := api.Create(ctx, object, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	for i := range dayNamespaces {
		if err := b.plane.CreateNamespace(ctx, dayNamespace(i)); err != nil {
			return err
		}
	}
	return nil
}

// bulkText is 1 KiB that hardly compresses.
func bulkText() string {
	random := make([]byte, 768)
	_, _ = rand.Read(random) // it never fails
	return base64.StdEncoding.EncodeToString(random)
}

// change changes a ConfigMap of 1 KiB.
func (b *bench) change(ctx context.Context, namespace string) error {
	api := b.admin.CoreV1().ConfigMaps(namespace)
	object := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "changing"},
		Data:       map[string]string{"text": bulkText()},
	}
	_, err := api.Update(ctx, object, metav1.UpdateOptions{})
	if err != nil {
		_, err = api.Create(ctx, object, metav1.CreateOptions{})
	}
	return err
}
