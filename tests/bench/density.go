package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

const (
	densityObjects = 200
	densityChanges = 40
)

var densityNamespaces = []string{"density-a", "density-b", "density-c"}

// sharers are sidecars on one node, and the informers of their programs.
type sharers struct {
	sidecars []*sidecar
	stores   []cache.Store
}

// density measures what 1, 10 and 30 sidecars on one node cost together. Each has the three
// informers of one program, with 200 pods each. The same program text is shared by all sidecars, so
// memory is the sum of the proportional set sizes (PSS, proc(5)).
func (b *bench) density(ctx context.Context) error {
	klog.SetLogger(logr.Discard()) // informers log that their sidecar ends
	for _, namespace := range densityNamespaces {
		if err := b.plane.CreateNamespace(ctx, namespace); err != nil {
			return err
		}
		if err := b.pods(ctx, namespace, densityObjects); err != nil {
			return err
		}
	}
	// Bookmarks come about once a minute on each watch, and are recorded.
	quiet := 5 * time.Minute
	if b.short {
		quiet = 75 * time.Second
	}
	for _, n := range []int{1, 10, 30} {
		if err := b.dense(ctx, n, quiet); err != nil {
			return fmt.Errorf("%d sidecars: %w", n, err)
		}
	}
	return nil
}

// dense measures n sidecars: after their lists, while nothing changes, and while one pod changes
// once a second.
func (b *bench) dense(ctx context.Context, n int, window time.Duration) error {
	watching, stop := context.WithCancel(ctx)
	s := &sharers{}
	defer func() {
		stop()
		for _, c := range s.sidecars {
			c.stop()
		}
	}()
	for i := range n {
		c, err := b.startSidecar(ctx, sidecarOptions{name: fmt.Sprintf("density-%d-%d", n, i), record: true})
		if err != nil {
			return err
		}
		s.sidecars = append(s.sidecars, c)
		if err := b.inform(watching, c, s); err != nil {
			return err
		}
	}
	if err := s.until(ctx, func(store cache.Store) bool { return len(store.ListKeys()) == densityObjects }); err != nil {
		return fmt.Errorf("the informers' first lists: %w", err)
	}
	for _, c := range s.sidecars {
		if _, err := settled(ctx, c.pid()); err != nil {
			return err
		}
	}
	what := fmt.Sprintf("%d sidecars, 3 informers of %d pods each", n, densityObjects)
	note := func(measure, unit string, value float64) { b.report.note(what, measure, unit, none, value) }
	before, err := s.use()
	if err != nil {
		return err
	}
	note("first lists: written to the disk, each", "MB", float64(before.written)/1e6/float64(n))
	note("disk, each", "MB", float64(before.disk)/1e6/float64(n))
	began := time.Now()
	if err := pause(ctx, window); err != nil {
		return err
	}
	quiet, err := s.use()
	if err != nil {
		return err
	}
	aDay := float64(24*time.Hour) / float64(time.Since(began))
	note("memory, PSS, all", "MiB", mib(quiet.pss))
	note("memory, PSS, each", "MiB", mib(quiet.pss)/float64(n))
	note("of which private, each", "MiB", mib(quiet.private)/float64(n))
	note("quiet: CPU, all", "millicores", 1000*(quiet.cpu-before.cpu).Seconds()/time.Since(began).Seconds())
	note("quiet: written to the disk, each", "MB/day", float64(quiet.written-before.written)*aDay/1e6/float64(n))

	began = time.Now()
	for i := range densityChanges {
		if err := until(ctx, began.Add(time.Duration(i)*time.Second)); err != nil {
			return err
		}
		if err := b.changePod(ctx, densityNamespaces[0], fmt.Sprint(n, "-", i)); err != nil {
			return err
		}
	}
	last := fmt.Sprint(n, "-", densityChanges-1)
	if err := s.until(ctx, func(store cache.Store) bool {
		object, found, err := store.GetByKey(densityNamespaces[0] + "/" + pod(0).Name)
		if err != nil || !found {
			return err == nil // the informers of the other namespaces
		}
		changed, ok := object.(*corev1.Pod)
		return ok && changed.Labels["changed"] == last
	}); err != nil {
		return fmt.Errorf("the last change: %w", err)
	}
	for _, c := range s.sidecars {
		if _, err := settled(ctx, c.pid()); err != nil {
			return err
		}
	}
	busy, err := s.use()
	if err != nil {
		return err
	}
	note("a change a second: CPU, all", "millicores", 1000*(busy.cpu-quiet.cpu).Seconds()/time.Since(began).Seconds())
	note("a change a second: written to the disk, each change and sidecar", "kB", float64(busy.written-quiet.written)/1e3/densityChanges/float64(n))
	return nil
}

// inform starts the three informers of a program behind a sidecar, with client-go's defaults.
func (b *bench) inform(ctx context.Context, c *sidecar, s *sharers) error {
	ca, err := c.ca()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(&rest.Config{
		Host: "https://" + c.address, BearerToken: b.token, TLSClientConfig: rest.TLSClientConfig{CAData: ca},
	})
	if err != nil {
		return err
	}
	for _, namespace := range densityNamespaces {
		factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
		s.stores = append(s.stores, factory.Core().V1().Pods().Informer().GetStore())
		factory.Start(ctx.Done())
	}
	return nil
}

// until waits until all stores fulfil a condition.
func (s *sharers) until(ctx context.Context, holds func(cache.Store) bool) error {
	return wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 2*time.Minute, true, func(context.Context) (bool, error) {
		for _, store := range s.stores {
			if !holds(store) {
				return false, nil
			}
		}
		return true, nil
	})
}

func (b *bench) changePod(ctx context.Context, namespace, value string) error {
	patch := fmt.Sprintf(`{"metadata":{"labels":{"changed":%q}}}`, value)
	_, err := b.admin.CoreV1().Pods(namespace).Patch(ctx, pod(0).Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

// use is what sidecars have used since their start, or have now.
type use struct {
	pss, private, written, disk int64 // bytes
	cpu                         time.Duration
}

func (s *sharers) use() (sum use, err error) {
	for _, c := range s.sidecars {
		pss, private, err := shareOf(c.pid())
		if err != nil {
			return sum, err
		}
		written, err := writtenBy(c.pid())
		if err != nil {
			return sum, err
		}
		cpu, err := cpuOf(c.pid())
		if err != nil {
			return sum, err
		}
		disk, err := sizeOf(c.path("cache"))
		if err != nil {
			return sum, err
		}
		sum = use{sum.pss + pss, sum.private + private, sum.written + written, sum.disk + disk, sum.cpu + cpu}
	}
	return sum, nil
}

// shareOf returns a process's share of memory, and what it shares with no other.
func shareOf(pid int) (pss, private int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[2] != "kB" {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return 0, 0, err
		}
		switch fields[0] {
		case "Pss:":
			pss = kib << 10
		case "Private_Clean:", "Private_Dirty:":
			private += kib << 10
		}
	}
	return pss, private, nil
}

// sizeOf returns the size of the files in a directory.
func sizeOf(directory string) (size int64, err error) {
	err = filepath.WalkDir(directory, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	return size, err
}
