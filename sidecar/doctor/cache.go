package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rockpool.dev/sidecar/inspect"
)

const (
	// nearlyFull is the part of a quota that is nearly all of it.
	nearlyFull = .9
	// maxAge is how old an answer may be without a warning.
	maxAge = time.Hour
	// minFree is how much of the disk must be free, in bytes.
	minFree = 64 << 20
	// maxChanges is how often the link may go down in an hour.
	maxChanges = 6
)

// open attaches to the cache; nil: it cannot be read, which cache tells.
func (x *examination) open(ctx context.Context) *inspect.Cache {
	if x.CacheError != nil {
		return nil
	}
	c, err := inspect.Open(ctx, x.Cache, x.Now)
	if err != nil {
		return nil
	}
	return c
}

// links checks the state of the link, and its last hour.
func (x *examination) links(ctx context.Context) {
	var down int
	if c := x.open(ctx); c != nil {
		changes, err := c.Links(ctx, x.Now().Add(-time.Hour))
		_ = c.Close() // nothing was written
		if err == nil {
			for _, change := range changes {
				if change.State == "offline" {
					down++
				}
			}
		}
	}
	if down > maxChanges {
		x.found(Warn, LinkFlaps, "the link went down %d times in the last hour", down)
	}
	if x.metrics == nil {
		return
	}
	last := sum(x.metrics.of("rockpool_link_last_online_timestamp_seconds"))
	since := x.Now().Sub(time.UnixMilli(int64(last * 1000))).Round(time.Second)
	if states := x.metrics.of("rockpool_link_state"); len(states) == 1 && states[0].value == 0 {
		x.found(Fail, LinkDown, "the link is down; it was up %s ago", since)
		return
	}
	x.ok(Link, "the link is up; it was down %s since the start", time.Duration(sum(x.metrics.of("rockpool_link_offline_seconds_total"))*float64(time.Second)).Round(time.Second))
}

// cache checks the file, and the quota.
func (x *examination) cache(ctx context.Context) {
	if x.CacheError != nil {
		x.found(Fail, CacheMissing, "the pod has no cache: %v", x.CacheError)
		return
	}
	c, err := inspect.Open(ctx, x.Cache, x.Now)
	if err != nil {
		x.found(Fail, CacheUnreadable, "the cache cannot be read: %v", err)
		return
	}
	defer c.Close() //nolint:errcheck // nothing was written
	before := len(x.findings)
	var damage []string
	objects, err := c.Verify(ctx, func(what string) { damage = append(damage, what) })
	if err != nil || len(damage) > 0 {
		x.found(Fail, CacheDamaged, "%d damages: %s", len(damage), strings.Join(damage[:min(3, len(damage))], "; ")+errText(err))
	}
	if stopped := x.metrics.of("rockpool_record_stopped"); sum(stopped) > 0 {
		x.found(Fail, RecordingStopped, "nothing is recorded: the disk is full, read-only or broken")
	}
	for _, used := range x.metrics.of("rockpool_cache_used_bytes") {
		name := used.labels["cache"]
		if most := sum(x.metrics.of("rockpool_cache_max_bytes", "cache", name)); most > 0 && used.value > nearlyFull*most {
			x.found(Warn, CacheFull, "the cache on %s uses %.0f of %.0f bytes", name, used.value, most)
		}
	}
	for _, list := range x.metrics.of("rockpool_record_oversized_bytes") {
		if list.value > 0 {
			x.found(Warn, ListTooLarge, "%s has %.0f bytes, more than the cache on %s may have", list.labels["collection"], list.value, list.labels["cache"])
		}
	}
	if len(x.findings) == before {
		x.ok(Cache, "%d objects on the disk, none damaged", objects)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// lists checks what the cache could answer.
func (x *examination) lists(ctx context.Context) {
	c := x.open(ctx)
	if c == nil {
		return
	}
	defer c.Close() //nolint:errcheck // nothing was written
	all, documents, err := c.List(ctx)
	if err != nil {
		return // cache has told
	}
	if len(all) == 0 && documents.Count == 0 {
		x.found(Warn, NothingRecorded, "nothing is recorded on the disk")
		return
	}
	complete := map[string]bool{}
	for _, l := range all {
		complete[l.Resource] = complete[l.Resource] || l.State == "complete"
	}
	var missing []string
	for _, s := range x.metrics.of("rockpool_requests_total", "verb", "list", "code", "200", "source", "upstream") {
		resource := s.labels["resource"]
		if !complete[resource] && len(x.metrics.of("rockpool_collection_age_seconds", "resource", resource)) == 0 && !slices.Contains(missing, resource) {
			missing = append(missing, resource)
		}
	}
	if len(missing) > 0 {
		x.found(Warn, ListNotRecorded, "lists of %s were read, and none is recorded whole", strings.Join(missing, ", "))
	}
	var old []string
	for _, s := range x.metrics.of("rockpool_collection_age_seconds") {
		if age := time.Duration(s.value * float64(time.Second)); age > maxAge {
			old = append(old, fmt.Sprintf("%s (%s)", s.labels["resource"], inspect.Age(age)))
		}
	}
	if len(old) > 0 {
		slices.Sort(old)
		x.found(Warn, AnswersOld, "answers would be old: %s", strings.Join(slices.Compact(old), ", "))
	}
	x.ok(Lists, "%d lists and sets of objects, and %d documents, are recorded", len(all), documents.Count)
}

// disk checks the file system of the cache.
func (x *examination) disk(context.Context) {
	if x.CacheError != nil {
		return
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(x.Cache, &fs); err != nil {
		return // cache has told
	}
	x.space(fs.Bavail*uint64(fs.Bsize), fs.Flags&unix.ST_RDONLY != 0)
}

// space judges the free bytes of the disk.
func (x *examination) space(free uint64, readOnly bool) {
	switch {
	case readOnly:
		x.found(Fail, DiskReadOnly, "the disk of %s is read-only", x.Cache)
	case free < minFree:
		x.found(Fail, DiskFull, "the disk of %s has %d MiB left", x.Cache, free>>20)
	default:
		x.ok(Disk, "%d MiB are free", free>>20)
	}
}
