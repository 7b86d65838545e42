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

// faultRig is an idle rig in a directory, with a clock and with its log.
type faultRig struct {
	*rig
	clock *testclock.FakeClock
	log   *observer.ObservedLogs
}

func newFaultRig(t *testing.T, dir string) *faultRig {
	t.Helper()
	g := &faultRig{rig: idleRig(t, dir, 0), clock: testclock.NewFakeClock(time.UnixMilli(1_700_000_000_000))}
	core, log := observer.New(zap.InfoLevel)
	g.log, g.Recorder.log, g.Recorder.clock = log, zap.New(core), g.clock
	return g
}

// written writes what waits.
func (g *faultRig) write() {
	for ops := g.take(); len(ops) > 0; ops = g.take() {
		g.Recorder.write(g.t.Context(), ops)
	}
}

// teeList records a list; the application reads all of it whatever the disk does.
func (g *faultRig) list(url, body string) {
	g.t.Helper()
	r := g.teeList(g.source(url), wire.JSON, answer(strings.NewReader(body)))
	got, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil || string(got) != body {
		g.t.Fatalf("the application reads %d of %d bytes: %v", len(got), len(body), err)
	}
	g.write()
}

func (g *faultRig) want(want ...string) {
	g.t.Helper()
	g.write()
	if got := g.recorded("configmaps"); !slices.Equal(got, want) {
		g.t.Fatalf("recorded:\n %s\nwant:\n %s", strings.Join(got, "\n "), strings.Join(want, "\n "))
	}
}

func (g *faultRig) wantStale(paths ...string) {
	g.t.Helper()
	var got []string
	for {
		select {
		case s := <-g.Stale():
			got = append(got, s.Source.Info.Path)
			continue
		default:
		}
		break
	}
	slices.Sort(got)
	if got = slices.Compact(got); !slices.Equal(got, paths) {
		g.t.Fatalf("listed again: %v, want %v", got, paths)
	}
}

func (g *faultRig) wantLog(want ...string) {
	g.t.Helper()
	var got []string
	for _, line := range g.log.TakeAll() {
		got = append(got, line.Message)
	}
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		g.t.Fatalf("log:\n %s\nwant:\n %s", strings.Join(got, "\n "), strings.Join(want, "\n "))
	}
}

// spoil overwrites everything in the file but its first page.
func (g *faultRig) spoil() {
	g.t.Helper()
	checkpoint(g.t, g.db.Path())
	f, err := os.OpenFile(g.db.Path(), os.O_WRONLY, 0)
	if err != nil {
		g.t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		g.t.Fatal(err)
	}
	_, err = f.WriteAt(bytes.Repeat([]byte{0xa5}, int(info.Size())-4096), 4096)
	if err := errors.Join(err, f.Close()); err != nil {
		g.t.Fatal(err)
	}
}

func TestRecordingBeginsAnewWhenItsFileIsLost(t *testing.T) {
	const (
		stopped = "recording has stopped"
		lost    = "the cache's file was lost"
		on      = "recording goes on"
	)
	for name, lose := range map[string]func(g *faultRig){
		"gone":    func(g *faultRig) { _ = os.Remove(g.db.Path()) },
		"corrupt": (*faultRig).spoil,
	} {
		t.Run(name, func(t *testing.T) {
			before := counter(t, recreatedTotal.WithLabelValues("", name))
			g := newFaultRig(t, t.TempDir())
			var items []string
			for i := range 50 {
				items = append(items, strings.Replace(configMap(fmt.Sprintf("o%02d", i), 7), "v7", strings.Repeat("x", 4<<10), 1))
			}
			g.list(configmaps, listOf(10, items...))
			w := g.Watch(g.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
			defer w.Close()
			unlisted := g.Watch(g.source("/api/v1/namespaces/other/configmaps?watch=true&resourceVersion=10"), wire.JSON)
			defer unlisted.Close()
			g.write()
			g.wantLog()

			lose(g)
			_, _ = g.db.List(t.Context(), 1, 1, store.Range{}, func(store.Object) error { return nil }) // a reader finds damage
			g.Used(1)
			g.write()
			g.wantLog(lost)
			g.wantStale(configmaps) // although nothing has happened in it
			if n := counter(t, recreatedTotal.WithLabelValues("", name)) - before; n != 1 {
				t.Errorf("%v new files are counted", n)
			}
			g.events(unlisted, "ADDED z 11")
			g.events(w, "ADDED a 11")
			g.want()
			g.wantStale(configmaps)
			g.list(configmaps, listOf(11, configMap("a", 11)))
			g.events(w, "MODIFIED a 12")
			g.want("complete shop/@12: a@12")
			g.wantStale()

			// Again, too soon.
			lose(g)
			for range 5 {
				g.list(configmaps, listOf(20, configMap("b", 20)))
			}
			g.wantLog(stopped)
			g.clock.Step(renewInterval)
			g.list(configmaps, listOf(20, configMap("b", 20)))
			g.wantLog(lost, on)
			g.list(configmaps, listOf(21, configMap("b", 20)))
			g.want("complete shop/@21: b@20")
			g.wantLog()
		})
	}
}

func TestADirectoryThatIsGoneIsTriedAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	g := newFaultRig(t, dir)
	g.list(configmaps, listOf(10, configMap("a", 1)))
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		g.list(configmaps, listOf(11, configMap("a", 1)))
		g.clock.Step(renewInterval)
	}
	g.wantLog("recording has stopped")
	if n := counter(t, g.metrics.stopped); n != 1 {
		t.Errorf("recording has stopped and the metric says %v", n)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	g.list(configmaps, listOf(12, configMap("a", 1)))
	g.wantLog("the cache's file was lost", "recording goes on")
	g.list(configmaps, listOf(13, configMap("a", 1)))
	g.want("complete shop/@13: a@1")
	if n := counter(t, g.metrics.stopped); n != 0 {
		t.Errorf("recording goes on and the metric says %v", n)
	}
}

func TestAFullDiskStopsRecordingUntilThereIsRoom(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a file system takes root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m,mode=0700"); err != nil {
		t.Skip("a file system cannot be mounted here:", err)
	}
	g := newFaultRig(t, dir)
	t.Cleanup(func() { _ = errors.Join(g.db.Close(), syscall.Unmount(dir, 0)) })
	g.list(configmaps, listOf(10, configMap("a", 1)))
	w := g.Watch(g.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON)
	defer w.Close()
	g.write()

	hog := filepath.Join(dir, "hog")
	f, err := os.Create(hog)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(f, io.LimitReader(zeros{}, 8<<20))
	if err := errors.Join(err, f.Close()); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("8 MiB in 4 gave %v", err)
	}
	var items []string
	for i := range 100 {
		items = append(items, strings.Replace(configMap(fmt.Sprintf("o%02d", i), 7), "v7", strings.Repeat("x", 8<<10), 1))
	}
	for range 3 {
		g.list(configmaps, listOf(20, items...))
	}
	g.want("complete shop/@10: a@1") // reading goes on
	g.wantLog("recording has stopped")

	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	g.events(w, "MODIFIED a 11")
	g.want("complete shop/@11: a@11")
	g.wantLog("recording goes on")
	g.list(configmaps, listOf(20, items...))
	if got := g.recorded("configmaps"); len(got) != 1 || !strings.HasPrefix(got[0], "complete shop/@20: o00@7") {
		t.Fatalf("recorded %.100s", got)
	}
	if n := g.count("collection"); n != 1 {
		t.Errorf("%d collections, of the lists that found no room something is left", n)
	}
}

func TestADiskThatIsNearlyFullDoesNotFillTheLog(t *testing.T) {
	g := newFaultRig(t, t.TempDir())
	for range 10 {
		g.enqueue(broken{})
		g.write()
		g.Link("online", "this fits")
		g.write()
	}
	g.wantLog("recording has stopped", "recording goes on")
	g.clock.Step(sayInterval)
	g.enqueue(broken{})
	g.write()
	g.wantLog("recording has stopped")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// A reader of a page sees an end when the file is replaced under it, as store's
// tests show; here the whole way of a list that is being recorded then.
func TestAListThatIsRecordedWhileTheFileIsLostIsGivenUp(t *testing.T) {
	g := newFaultRig(t, t.TempDir())
	g.list(configmaps, listOf(10, configMap("a", 1)))
	g.read(g.teeList(g.source(configmaps+"?limit=1"), wire.JSON, answer(strings.NewReader(page(20, "one", configMap("b", 2))))))
	g.write()
	if err := os.Remove(g.db.Path()); err != nil {
		t.Fatal(err)
	}
	g.Link("online", "a group in which it is noticed")
	g.write()
	g.list(configmaps+"?limit=1&continue=one", listOf(20, configMap("c", 3)))
	g.want()
	if n := g.count("object"); n != 0 {
		t.Errorf("%d objects of it are in the new file", n)
	}
	g.list(configmaps, listOf(21, configMap("c", 3)))
	g.want("complete shop/@21: c@3")
}

func TestWhatIsWrittenStaysWhenThereIsNoRoomToMakeRoomIn(t *testing.T) {
	g := newRig(t, 0)
	raw, err := sql.Open("sqlite3", "file:"+g.db.Path())
	if err != nil {
		t.Fatal(err)
	}
	_, err = raw.Exec(`CREATE TRIGGER full BEFORE DELETE ON response BEGIN SELECT RAISE(ABORT, 'no room to delete in'); END`)
	if err := errors.Join(err, raw.Close()); err != nil {
		t.Fatal(err)
	}
	w := g.Watch(g.source(configmaps+"?watch=true&resourceVersion=10"), wire.JSON) // so the list is not what is evicted
	defer w.Close()
	dropped := counter(t, droppedTotal.WithLabelValues("store"))
	resp := &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(strings.Repeat("x", 3900<<10)))}
	g.read(g.teeDocument(g.source("/apis"), nil, resp)) // more than 9/10 of the quota
	g.list(configmaps, listOf(10, configMap("a", 1)))
	g.want("complete shop/@10: a@1") // and with the group of want
	g.want("complete shop/@10: a@1")
	if n := counter(t, droppedTotal.WithLabelValues("store")) - dropped; n != 0 {
		t.Errorf("%v operations that were written count as lost", n)
	}
	if n := counter(t, g.metrics.stopped); n != 1 {
		t.Errorf("no room can be made and the metric says %v", n)
	}
}
