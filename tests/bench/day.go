package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/tests/bed/link"
)

// day counts what a pod that does nothing costs its link a day: with three quiet watches, as
// client-go opens them, with one change a minute, and without watches. It counts for a while and
// multiplies.
func (b *bench) day(ctx context.Context) error {
	window := 10 * time.Minute
	if b.short {
		window = 3 * time.Minute
	}
	aDay := float64(24*time.Hour) / float64(window)
	all, err := b.remotes(ctx, "day")
	if err != nil {
		return err
	}
	for _, r := range all {
		defer r.close()
	}
	watching, stop := context.WithCancel(ctx)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stop()
	seen := make([]bookmarks, len(all))
	for i, r := range all {
		for _, resource := range []string{"configmaps", "services", "endpoints"} {
			path := "/api/v1/namespaces/" + someNamespace + "/" + resource + "?watch=true&allowWatchBookmarks=true&resourceVersion=0"
			resp, err := r.open(watching, r.client, path, asJSON)
			if err != nil {
				return err
			}
			readers.Go(func() { seen[i].count(resp.Body) })
		}
	}
	// during counts while do runs, which takes one window.
	during := func(do func() error) (wire, events, payload series, err error) {
		if err := pause(ctx, 15*time.Second); err != nil { // what was just opened
			return nil, nil, nil, err
		}
		marks, eventMarks, byteMarks := make([]link.Stats, len(all)), make([]int64, len(all)), make([]int64, len(all))
		for i, r := range all {
			marks[i], eventMarks[i], byteMarks[i] = r.wan.Stats(), seen[i].events.Load(), seen[i].bytes.Load()
		}
		if err := do(); err != nil {
			return nil, nil, nil, err
		}
		wire, events, payload = series{}, series{}, series{}
		for i, r := range all {
			wire.add(r.name, float64(r.wan.Stats().Since(marks[i]).Wire())*aDay/1e6)
			events.add(r.name, float64(seen[i].events.Load()-eventMarks[i])*aDay)
			payload.add(r.name, float64(seen[i].bytes.Load()-byteMarks[i])*aDay/1e6)
		}
		return wire, events, payload, nil
	}
	quiet := func() error { return pause(ctx, window) }
	changing := func() error {
		for i := range int(window / time.Minute) {
			if err := b.change(ctx, i); err != nil {
				return err
			}
			if err := pause(ctx, time.Minute); err != nil {
				return err
			}
		}
		return nil
	}

	wire, events, payload, err := during(quiet)
	if err != nil {
		return err
	}
	const bytesOnTheLink = "bytes on the link, both ways"
	b.report.compare("a day, 3 quiet watches", bytesOnTheLink, "MB", wire).atMost(wire.median("on"), 1, "on")
	b.report.compare("a day, 3 quiet watches", "bookmarks", "", events)
	b.report.compare("a day, 3 quiet watches", "bookmarks, JSON alone", "MB", payload)
	if wire, _, _, err = during(changing); err != nil {
		return err
	}
	b.report.compare("a day, 3 watches, one change of 1 KiB a minute", bytesOnTheLink, "MB", wire)
	stop()
	if err := pause(ctx, 2*time.Minute); err != nil { // connections end
		return err
	}
	if wire, _, _, err = during(quiet); err != nil {
		return err
	}
	b.report.compare("a day, no stream, no request", bytesOnTheLink, "MB", wire).atMost(wire.median("on"), 0, "on")
	return nil
}

// bookmarks counts those of several watches, with their bytes as JSON.
type bookmarks struct{ events, bytes atomic.Int64 }

// count reads a watch to its end.
func (b *bookmarks) count(body io.ReadCloser) {
	defer body.Close()
	lines := bufio.NewReader(body)
	for {
		line, err := lines.ReadBytes('\n')
		if bytes.HasPrefix(line, []byte(`{"type":"BOOKMARK"`)) {
			b.events.Add(1)
			b.bytes.Add(int64(len(line)))
		}
		if err != nil {
			return
		}
	}
}

// change changes a ConfigMap of 1 KiB.
func (b *bench) change(ctx context.Context, i int) error {
	api := b.plane.Client().CoreV1().ConfigMaps(someNamespace)
	object := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "changing"},
		Data:       map[string]string{"text": fmt.Sprintf("%01024d", i)},
	}
	_, err := api.Update(ctx, object, metav1.UpdateOptions{})
	if err != nil {
		_, err = api.Create(ctx, object, metav1.CreateOptions{})
	}
	return err
}
