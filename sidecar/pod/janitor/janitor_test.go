package janitor

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"rockpool.dev/sidecar/pod/slot"
)

func TestWhatARoundRemoves(t *testing.T) {
	const dir = "shop/default/deployment.web"
	slotFiles := func(path string) []string {
		return []string{path, path + "/lock", path + "/rockpool.db", path + "/rockpool.db-wal"}
	}
	above := []string{"shop", "shop/default", dir}
	tests := map[string]struct {
		setup func(v *volume)
		want  Round
		left  []string // paths that the round leaves
	}{
		"an empty volume": {setup: func(*volume) {}},
		"an old slot, and the directories that are empty after its removal": {
			setup: func(v *volume) { v.slot(dir + "/0") },
			want:  Round{Removed: 1, Emptied: 3},
		},
		"a slot whose database was written recently stays": {
			setup: func(v *volume) { v.slot(dir + "/0"); v.touch(dir + "/0/rockpool.db") },
			want:  Round{Young: 1}, left: append(above, slotFiles(dir+"/0")...),
		},
		"a slot whose WAL was written recently stays": {
			setup: func(v *volume) { v.slot(dir + "/0"); v.touch(dir + "/0/rockpool.db-wal") },
			want:  Round{Young: 1}, left: append(above, slotFiles(dir+"/0")...),
		},
		"a slot that a pod only read, and released recently, stays": {
			setup: func(v *volume) { v.slot(dir + "/0"); v.touch(dir + "/0/lock") },
			want:  Round{Young: 1}, left: append(above, slotFiles(dir+"/0")...),
		},
		"a slot with a time in the future, from a wrong clock, stays": {
			setup: func(v *volume) {
				v.slot(dir + "/0")
				future := v.clock.Now().Add(10 * maxAge)
				os.Chtimes(v.path(dir+"/0/rockpool.db"), future, future)
			},
			want: Round{Young: 1}, left: append(above, slotFiles(dir+"/0")...),
		},
		"an old slot next to a young one": {
			setup: func(v *volume) { v.slot(dir + "/0"); v.slot(dir + "/1"); v.touch(dir + "/0/rockpool.db") },
			want:  Round{Removed: 1, Young: 1}, left: append(above, slotFiles(dir+"/0")...),
		},
		"an old slot that another process holds stays": {
			setup: func(v *volume) { v.slot(dir + "/0"); v.hold(dir) },
			want:  Round{Held: 1}, left: append(above, slotFiles(dir+"/0")...),
		},
		"an old slot whose holder was killed": {
			setup: func(v *volume) {
				v.slot(dir + "/0")
				pod := v.hold(dir)
				pod.Process.Kill()
				pod.Wait()
			},
			want: Round{Removed: 1, Emptied: 3},
		},
		"the other workloads of a namespace stay": {
			setup: func(v *volume) {
				v.slot("shop/default/deployment.web/0")
				v.slot("shop/default/daemonset.agent/0")
				v.slot("shop/cart/job.a/0")
				v.touch("shop/default/deployment.web/0/rockpool.db")
			},
			want: Round{Removed: 2, Young: 1, Emptied: 3}, left: append(above, slotFiles(dir+"/0")...),
		},
		"directories that never had a slot": {
			setup: func(v *volume) { v.workload(dir) },
			want:  Round{Emptied: 3},
		},
		"the leftover of an interrupted round": {
			setup: func(v *volume) {
				os.Rename(v.slot(dir+"/0"), v.path(dir+"/0.removed"))
				v.slot(dir + "/0")
			},
			want: Round{Removed: 1, Emptied: 3},
		},
		"the leftover of an interrupted round next to a new slot": {
			setup: func(v *volume) {
				os.Rename(v.slot(dir+"/0"), v.path(dir+"/0.removed"))
				v.slot(dir + "/0")
				v.touch(dir + "/0/rockpool.db")
			},
			want: Round{Young: 1}, left: append(above, slotFiles(dir+"/0")...),
		},
		"an empty slot that no pod has locked": {
			setup: func(v *volume) { v.workload(dir); os.Mkdir(v.path(dir+"/0"), 0o700) },
			want:  Round{Emptied: 4},
		},
		"a slot that no pod has locked, with a file in it, stays": {
			setup: func(v *volume) { v.workload(dir); os.Mkdir(v.path(dir+"/0"), 0o700); v.write(dir+"/0/x", 0) },
			left:  append(above, dir+"/0", dir+"/0/x"),
		},
		"files and directories of other programs stay": {
			setup: func(v *volume) {
				v.write("file", 1)
				os.Mkdir(v.path("lost+found"), 0o700)
				os.Mkdir(v.path("open"), 0o755)
				v.workload("ns/sa/nokind")
				v.workload(dir)
				v.write(dir+"/notes", 1)
				os.Mkdir(v.path(dir+"/64"), 0o700)
				os.Mkdir(v.path(dir+"/backup"), 0o700)
			},
			want: Round{Unknown: 7},
			left: []string{"file", "lost+found", "ns", "ns/sa", "ns/sa/nokind", "open", "shop", "shop/default", dir, dir + "/64", dir + "/backup", dir + "/notes"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := newVolume(t)
			test.setup(v)
			before := v.paths()

			dry, err := v.janitor(Options{DryRun: true}).Once(t.Context())
			if err != nil {
				t.Error(err)
			}
			if now := v.paths(); !slices.Equal(now, before) {
				t.Errorf("a dry run has changed %q to %q", before, now)
			}
			got, err := v.janitor(Options{}).Once(t.Context())
			if err != nil {
				t.Error(err)
			}
			if dry.Removed != got.Removed || dry.Freed != got.Freed || dry.Young != got.Young || dry.Held != got.Held || dry.Kept != got.Kept {
				t.Errorf("the dry run returns %+v, the round %+v", dry, got)
			}
			if got.Freed < 8192*int64(got.Removed) || (got.Removed == 0) != (got.Freed == 0) {
				t.Errorf("freed %d bytes", got.Freed)
			}
			if stay := int64(got.Young + got.Held); got.Kept < 8192*stay || (stay == 0) != (got.Kept == 0) {
				t.Errorf("kept %d bytes", got.Kept)
			}
			got.Freed, got.Kept = 0, 0
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			slices.Sort(test.left)
			now := v.paths()
			slices.Sort(now)
			if !slices.Equal(now, test.left) {
				t.Errorf("left: %q\nwant: %q", now, test.left)
			}
		})
	}
}

// The time between the prepare container and the sidecar can be long: images are pulled.
func TestADirectoryThatAPodIsAboutToUseStays(t *testing.T) {
	v := newVolume(t)
	v.clock.SetTime(time.Now().Add(maxAge / 2))
	v.workload("shop/default/deployment.web")
	if got, err := v.janitor(Options{}).Once(t.Context()); err != nil || got != (Round{}) {
		t.Errorf("%+v, %v", got, err)
	}
	s, err := slot.Acquire(v.path("shop/default/deployment.web"), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	v.clock.SetTime(time.Now().Add(2 * maxAge))
	if got, err := v.janitor(Options{}).Once(t.Context()); err != nil || got.Removed != 1 || got.Emptied != 3 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestARoundContinuesAfterAFailure(t *testing.T) {
	v := newVolume(t)
	v.slot("a/sa/pod.x/0")
	os.Remove(v.path("a/sa/pod.x/0/lock"))
	os.Mkdir(v.path("a/sa/pod.x/0/lock"), 0o700)
	v.slot("b/sa/pod.x/0")
	registry := prometheus.NewRegistry()
	got, err := v.janitor(Options{Registerer: registry}).Once(t.Context())
	if err == nil || !strings.Contains(err.Error(), "a/sa/pod.x/0: the lock is not a file") {
		t.Errorf("got %v", err)
	}
	if got.Unreached != 1 || got.Removed != 1 {
		t.Errorf("%+v", got)
	}
	want := `
# HELP rockpool_janitor_removed_slots_total Removed caches of pods.
# TYPE rockpool_janitor_removed_slots_total counter
rockpool_janitor_removed_slots_total 1
# HELP rockpool_janitor_rounds_total Scans of the whole cache volume, by result: ok, or failed if a path could not be read or removed.
# TYPE rockpool_janitor_rounds_total counter
rockpool_janitor_rounds_total{result="failed"} 1
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "rockpool_janitor_removed_slots_total", "rockpool_janitor_rounds_total"); err != nil {
		t.Error(err)
	}

	os.RemoveAll(v.root)
	if _, err := v.janitor(Options{}).Once(t.Context()); err == nil || !strings.Contains(err.Error(), "cache volume") {
		t.Errorf("a missing volume: %v", err)
	}
}

func TestRunScansEveryInterval(t *testing.T) {
	v := newVolume(t)
	j := v.janitor(Options{})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { j.Run(ctx, time.Hour); close(done) }()
	waiting := func() {
		t.Helper()
		for !v.clock.HasWaiters() {
			if t.Context().Err() != nil {
				t.Fatal("does not wait for the next round")
			}
			runtime.Gosched()
		}
	}
	waiting()
	for range 2 {
		v.slot("shop/default/deployment.web/0")
		v.clock.Step(time.Hour)
		for { // not with paths, which fails if a directory is removed during its walk
			if entries, err := os.ReadDir(v.root); err == nil && len(entries) == 0 {
				break
			}
			runtime.Gosched()
		}
		waiting()
	}
	stop()
	<-done
}

func TestInvalidOptions(t *testing.T) {
	for want, o := range map[string]Options{
		"root":      {MaxAge: time.Hour},
		"max-age":   {Root: "/x", MaxAge: -1},
		"max-slots": {Root: "/x", MaxSlots: -1},
		"max-size":  {Root: "/x", MaxBytes: -1},
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestTheOldestSlotsBeyondTheBoundAreRemoved(t *testing.T) {
	for name, test := range map[string]struct {
		max     int
		bytes   int64 // each slot takes 8 KiB and its directory
		spare   string
		dryRun  bool
		age     time.Duration // of the newest slot; each other one is an hour older
		held    bool          // a pod holds the oldest one
		left    []string
		removed int
	}{
		"no bound":                           {max: 0, age: 2 * time.Hour, left: []string{"a", "b", "c", "d"}},
		"not reached":                        {max: 4, age: 2 * time.Hour, left: []string{"a", "b", "c", "d"}},
		"two too many":                       {max: 2, age: 2 * time.Hour, left: []string{"a", "b"}, removed: 2},
		"one of them is held":                {max: 2, age: 2 * time.Hour, held: true, left: []string{"a", "d"}, removed: 2},
		"the only one that may stay is held": {max: 1, age: 2 * time.Hour, held: true, left: []string{"d"}, removed: 3},
		"the room is for one that is held":   {bytes: 14 << 10, age: 2 * time.Hour, held: true, left: []string{"d"}, removed: 3},
		"a dry run with one that is held":    {max: 2, dryRun: true, age: 2 * time.Hour, held: true, left: []string{"a", "b", "c", "d"}, removed: 2},
		"those of the last hour stay":        {max: 1, age: time.Minute, left: []string{"a"}, removed: 3},
		"all of the last hour stay":          {max: 1, age: -4 * time.Hour, left: []string{"a", "b", "c", "d"}},
		"all fit on the disk":                {bytes: 1 << 20, age: 2 * time.Hour, left: []string{"a", "b", "c", "d"}},
		"two are too much for the disk":      {bytes: 28 << 10, age: 2 * time.Hour, left: []string{"a", "b"}, removed: 2},
		"the tighter bound counts":           {max: 3, bytes: 14 << 10, age: 2 * time.Hour, left: []string{"a"}, removed: 3},
		"no room at all":                     {bytes: 1, age: 2 * time.Hour, removed: 4},
		"the own workload stays":             {max: 2, spare: "shop/default/deployment.d", age: 2 * time.Hour, left: []string{"a", "b", "d"}, removed: 1},
		"a dry run says what it would do":    {max: 2, dryRun: true, age: 2 * time.Hour, left: []string{"a", "b", "c", "d"}, removed: 2},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVolume(t)
			for i, workload := range []string{"a", "b", "c", "d"} {
				directory := "shop/default/deployment." + workload + "/0"
				v.slot(directory)
				if workload == "d" && test.held {
					v.hold("shop/default/deployment.d")
				}
				at := v.clock.Now().Add(-test.age - time.Duration(i)*time.Hour)
				for _, path := range []string{directory + "/lock", directory + "/rockpool.db", directory + "/rockpool.db-wal", directory} {
					if err := os.Chtimes(v.path(path), at, at); err != nil {
						t.Fatal(err)
					}
				}
			}
			round, err := v.janitor(Options{MaxSlots: test.max, MaxBytes: test.bytes, Spare: test.spare, DryRun: test.dryRun}).Once(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var left []string
			for _, workload := range []string{"a", "b", "c", "d"} {
				if _, err := os.Stat(v.path("shop/default/deployment." + workload + "/0/rockpool.db")); err == nil {
					left = append(left, workload)
				}
			}
			if !slices.Equal(left, test.left) || round.Removed != test.removed {
				t.Errorf("left are %q, want %q; removed %d, want %d", left, test.left, round.Removed, test.removed)
			}
		})
	}
}

func TestTheSlotsOfAPodThatIsAboutToStartStayBeyondTheBound(t *testing.T) {
	v := newVolume(t)
	v.clock.SetTime(time.Now()) // that of the change times, which nobody can set
	for i, workload := range []string{"a", "b", "c"} {
		directory := fmt.Sprintf("shop/default/deployment.%s/0", workload)
		v.slot(directory)
		at := v.clock.Now().Add(-time.Duration(i+2) * time.Hour)
		for _, path := range []string{directory + "/lock", directory + "/rockpool.db", directory + "/rockpool.db-wal", directory} {
			if err := os.Chtimes(v.path(path), at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	j := v.janitor(Options{MaxSlots: 1})
	if round, err := j.Once(t.Context()); err != nil || round.Removed != 0 {
		t.Errorf("just prepared: %+v, %v", round, err)
	}
	v.clock.Step(minAge + time.Minute)
	if round, err := j.Once(t.Context()); err != nil || round.Removed != 2 {
		t.Errorf("later: %+v, %v", round, err)
	}
}

func TestASlotThatCannotBeReadDoesNotLiftTheBounds(t *testing.T) {
	v := newVolume(t)
	v.slot("shop/default/deployment.odd/0")
	if err := os.Remove(v.path("shop/default/deployment.odd/0/lock")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(v.path("shop/default/deployment.odd/0/lock"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, workload := range []string{"a", "b", "c"} {
		v.slot("shop/default/deployment." + workload + "/0")
		v.touch("shop/default/deployment." + workload + "/0/rockpool.db")
	}
	if round, err := v.janitor(Options{MaxSlots: 1}).Once(t.Context()); err == nil || round.Removed != 3 {
		t.Errorf("%+v, %v", round, err)
	}
}
