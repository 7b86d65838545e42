package record

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	testclock "k8s.io/utils/clock/testing"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// faultHarness is an idle harness with a fake clock and an observed log.
type faultHarness struct {
	*harness
	clock *testclock.FakeClock
	log   *observer.ObservedLogs
}

func newFaultHarness(t *testing.T, dir string) *faultHarness {
	t.Helper()
	h := &faultHarness{harness: idleHarness(t, dir, 0), clock: testclock.NewFakeClock(time.UnixMilli(1_700_000_000_000))}
	core, log := observer.New(zap.InfoLevel)
	h.log, h.Recorder.log, h.Recorder.clock = log, zap.New(core), h.clock
	return h
}

func (h *faultHarness) write() {
	h.drain(h.t.Context())
}

// list records a list. The application reads all of it, whatever happens to the disk.
func (h *faultHarness) list(url, body string) {
	h.t.Helper()
	r := h.teeList(h.source(url), wire.JSON, answer(strings.NewReader(body)))
	got, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil || string(got) != body {
		h.t.Fatalf("the application reads %d of %d bytes: %v", len(got), len(body), err)
	}
	h.write()
}

func (h *faultHarness) want(want ...string) {
	h.t.Helper()
	h.write()
	if got := h.recorded("configmaps"); !slices.Equal(got, want) {
		h.t.Fatalf("recorded:\n %s\nwant:\n %s", strings.Join(got, "\n "), strings.Join(want, "\n "))
	}
}

func (h *faultHarness) wantStale(paths ...string) {
	h.t.Helper()
	var got []string
	for {
		select {
		case s := <-h.Stale():
			got = append(got, s.Source.Info.Path)
			continue
		default:
		}
		break
	}
	slices.Sort(got)
	if got = slices.Compact(got); !slices.Equal(got, paths) {
		h.t.Fatalf("stale: %v, want %v", got, paths)
	}
}

func (h *faultHarness) wantLog(want ...string) {
	h.t.Helper()
	var got []string
	for _, line := range h.log.TakeAll() {
		got = append(got, line.Message)
	}
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		h.t.Fatalf("log:\n %s\nwant:\n %s", strings.Join(got, "\n "), strings.Join(want, "\n "))
	}
}

// corruptFile overwrites the whole file except its first page.
func (h *faultHarness) corruptFile() {
	h.t.Helper()
	checkpoint(h.t, h.db.Path())
	f, err := os.OpenFile(h.db.Path(), os.O_WRONLY, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		h.t.Fatal(err)
	}
	_, err = f.WriteAt(bytes.Repeat([]byte{0xa5}, int(info.Size())-4096), 4096)
	if err := errors.Join(err, f.Close()); err != nil {
		h.t.Fatal(err)
	}
}

func TestRecordingContinuesInANewFileWhenTheOldOneIsLost(t *testing.T) {
	const (
		stopped = "cannot write to the cache"
		lost    = "lost the cache file"
		on      = "recording resumes"
	)
	for name, loseFile := range map[string]func(h *faultHarness){
		"gone":    func(h *faultHarness) { _ = os.Remove(h.db.Path()) },
		"corrupt": (*faultHarness).corruptFile,
	} {
		t.Run(name, func(t *testing.T) {
			before := counter(t, recreatedTotal.WithLabelValues("", name))
			h := newFaultHarness(t, t.TempDir())
			var told []string
			h.rebuilt = func(what string) { told = append(told, what) }
			var items []string
			for i := range 50 {
				items = append(items, strings.Replace(configMap(fmt.Sprintf("o%02d", i), 7), "v7", strings.Repeat("x", 4<<10), 1))
			}
			h.Link("online", "the API server answers")
			h.list(configmaps, listOf(10, items...))
			w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
			defer w.Close()
			unlisted := h.Watch(h.source("/api/v1/namespaces/other/configmaps?watch=true&resourceVersion=10"), wire.JSON)
			defer unlisted.Close()
			h.write()
			h.wantLog()
			h.wantStale("/api/v1/namespaces/other/configmaps") // its list was lost

			loseFile(h)
			_, _ = h.db.List(t.Context(), 1, 1, store.Range{}, func(store.Object) error { return nil }) // a reader finds the damage
			h.Used(1)
			h.write()
			h.wantLog(lost)
			h.wantStale(configmaps) // although no event came
			if n := counter(t, recreatedTotal.WithLabelValues("", name)) - before; n != 1 {
				t.Errorf("%v new files are counted", n)
			}
			if len(told) != 1 || !strings.Contains(told[0], "a new, empty one") {
				t.Errorf("told: %q", told)
			}
			h.events(unlisted, "ADDED z 11")
			h.events(w, "ADDED a 11")
			h.write()
			if n := h.count("link WHERE state = 'online'"); n != 1 {
				t.Error("the new file does not know the state of the link")
			}
			h.want("seen /@: a@11 z@11")
			h.wantStale("/api/v1/namespaces/other/configmaps", configmaps)
			h.list(configmaps, listOf(11, configMap("a", 11)))
			h.events(w, "MODIFIED a 12")
			h.want("seen /@:", "complete shop/@12: a@12")
			h.wantStale()

			// Once more, too soon.
			loseFile(h)
			for range 5 {
				h.list(configmaps, listOf(20, configMap("b", 20)))
			}
			h.wantLog(stopped)
			h.clock.Step(recreateInterval)
			h.list(configmaps, listOf(20, configMap("b", 20)))
			h.wantLog(lost, on)
			h.list(configmaps, listOf(21, configMap("b", 20)))
			h.want("complete shop/@21: b@20")
			h.wantLog()
		})
	}
}

func TestAMissingDirectoryIsTriedAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	h := newFaultHarness(t, dir)
	h.list(configmaps, listOf(10, configMap("a", 1)))
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		h.list(configmaps, listOf(11, configMap("a", 1)))
		h.clock.Step(recreateInterval)
	}
	h.wantLog("cannot write to the cache")
	if n := counter(t, h.metrics.stopped); n != 1 {
		t.Errorf("recording has stopped, but the metric says %v", n)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	h.list(configmaps, listOf(12, configMap("a", 1)))
	h.wantLog("lost the cache file", "recording resumes")
	h.list(configmaps, listOf(13, configMap("a", 1)))
	h.want("complete shop/@13: a@1")
	if n := counter(t, h.metrics.stopped); n != 0 {
		t.Errorf("recording works, but the metric says %v", n)
	}
}

func TestAFullDiskStopsRecordingUntilItHasRoom(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a file system")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m,mode=0700"); err != nil {
		t.Skip("cannot mount a file system:", err)
	}
	h := newFaultHarness(t, dir)
	t.Cleanup(func() { _ = errors.Join(h.db.Close(), syscall.Unmount(dir, 0)) })
	h.list(configmaps, listOf(10, configMap("a", 1)))
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	defer w.Close()
	h.write()

	hog := filepath.Join(dir, "hog")
	f, err := os.Create(hog)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(f, io.LimitReader(zeros{}, 8<<20))
	if err := errors.Join(err, f.Close()); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("writing 8 MiB to a 4 MiB disk: %v", err)
	}
	var items []string
	for i := range 100 {
		items = append(items, strings.Replace(configMap(fmt.Sprintf("o%02d", i), 7), "v7", strings.Repeat("x", 8<<10), 1))
	}
	for range 3 {
		h.list(configmaps, listOf(20, items...))
	}
	h.want("complete shop/@10: a@1") // reading still works
	h.wantLog("cannot write to the cache")

	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	h.events(w, "MODIFIED a 11")
	h.want("complete shop/@11: a@11")
	h.wantLog("recording resumes")
	h.list(configmaps, listOf(20, items...))
	if got := h.recorded("configmaps"); len(got) != 1 || !strings.HasPrefix(got[0], "complete shop/@20: o00@7") {
		t.Fatalf("recorded %.100s", got)
	}
	if n := h.count("collection"); n != 1 {
		t.Errorf("%d collections: lists that did not fit left rows", n)
	}
}

func TestANearlyFullDiskDoesNotFillTheLog(t *testing.T) {
	h := newFaultHarness(t, t.TempDir())
	for range 10 {
		h.enqueue(broken{})
		h.write()
		h.Link("online", "this fits")
		h.write()
	}
	h.wantLog("cannot write to the cache", "recording resumes")
	h.clock.Step(logInterval)
	h.enqueue(broken{})
	h.write()
	h.wantLog("cannot write to the cache")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// The store's tests show that a reader gets an end at a page when the file is replaced. This test
// records a list through such a replacement.
func TestAListIsGivenUpWhenTheFileIsLost(t *testing.T) {
	h := newFaultHarness(t, t.TempDir())
	h.list(configmaps, listOf(10, configMap("a", 1)))
	h.read(h.teeList(h.source(configmaps+"?limit=1"), wire.JSON, answer(strings.NewReader(page(20, "one", configMap("b", 2))))))
	h.write()
	if err := os.Remove(h.db.Path()); err != nil {
		t.Fatal(err)
	}
	h.Link("online", "a group in which it is noticed")
	h.write()
	h.list(configmaps+"?limit=1&continue=one", listOf(20, configMap("c", 3)))
	h.want()
	if n := h.count("object"); n != 0 {
		t.Errorf("%d of its objects are in the new file", n)
	}
	h.list(configmaps, listOf(21, configMap("c", 3)))
	h.want("complete shop/@21: c@3")
}

func TestAFailedEvictionLosesNoWrittenGroup(t *testing.T) {
	h := newHarness(t, 0)
	raw, err := sql.Open("sqlite3", "file:"+h.db.Path())
	if err != nil {
		t.Fatal(err)
	}
	_, err = raw.Exec(`CREATE TRIGGER full BEFORE DELETE ON response BEGIN SELECT RAISE(ABORT, 'no room to delete in'); END`)
	if err := errors.Join(err, raw.Close()); err != nil {
		t.Fatal(err)
	}
	w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON) // so that the list is not evicted
	defer w.Close()
	dropped := counter(t, droppedTotal.WithLabelValues("store"))
	resp := &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(strings.Repeat("x", 3900<<10)))}
	h.read(h.teeDocument(h.source("/apis"), nil, resp)) // more than 9/10 of the quota
	h.list(configmaps, listOf(10, configMap("a", 1)))
	h.want("complete shop/@10: a@1") // also after the group of want
	h.want("complete shop/@10: a@1")
	if n := counter(t, droppedTotal.WithLabelValues("store")) - dropped; n != 0 {
		t.Errorf("%v written operations count as dropped", n)
	}
	if n := counter(t, h.metrics.stopped); n != 1 {
		t.Errorf("eviction fails, but the metric says %v", n)
	}
}
