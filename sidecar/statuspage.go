package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/config"
	"rockpool.dev/sidecar/inspect"
	"rockpool.dev/sidecar/status"
)

// status finds out what the status page shows. What cannot be found out is one of its problems.
func (s *sidecar) status(ctx context.Context) *status.Status {
	now := time.Now()
	out := &status.Status{
		Now: now, Version: programVersion(), Started: s.started, Node: s.cfg.Node.Name,
		Link: status.Link{State: s.upstream.State().String(), LastOnline: s.upstream.LastOnline(), Offline: s.upstream.Offline()},
	}
	out.Host, _ = os.Hostname()
	for _, a := range s.upstream.Addresses() {
		out.Addresses = append(out.Addresses, status.Address{
			URL: a.URL, State: a.Verdict.String(), Ready: a.Ready, LastResort: a.LastResort, Heard: a.Heard, RoundTrip: a.RoundTrip, Error: a.Error,
		})
	}
	problem := func(what string, err error) {
		if err != nil {
			out.Problems = append(out.Problems, fmt.Sprintf("%s: %v", what, err))
		}
	}
	// The rehearsal writes what is queued, so that the lists below have it.
	problem("requests that would fail offline", s.rehearseFor(ctx, out))
	problem("recorded lists on the disk", describeCache(ctx, out, s.caches.Disk, false))
	problem("recorded lists in memory", describeCache(ctx, out, s.caches.Memory, true))
	if db := s.caches.Disk.Store(); db != nil {
		changes, err := db.Links(ctx, now.Add(-24*time.Hour))
		problem("history of the link", err)
		for _, c := range changes {
			out.Link.Changes = append(out.Link.Changes, status.Change{At: c.At, State: c.State, Reason: c.Reason})
		}
	} else {
		out.Problems = append(out.Problems, "there is no cache on the disk: nothing is recorded; the log says why")
	}
	out.Watches = s.dispatcher.OpenWatches()
	out.Errors = s.recent.Errors()
	if refused := s.filter.Refused(); len(refused) > 0 {
		out.Problems = append(out.Problems, fmt.Sprintf("filters keep what they cannot decide: the API server refuses the lists of %s; grant list and watch to the program's account", strings.Join(refused, ", ")))
	}
	settings, problems, err := config.Describe(s.flags, s.cfg)
	problem("settings", err)
	for _, p := range problems {
		problem("settings", p)
	}
	for _, x := range settings {
		out.Settings = append(out.Settings, status.Setting(x))
	}
	return out
}

// rehearseFor adds which requests would fail, and returns an error if that is not known. It is called
// before the collections are described.
func (s *sidecar) rehearseFor(ctx context.Context, out *status.Status) error {
	all, err := s.dispatcher.Rehearse(ctx)
	if err != nil {
		return err
	}
	out.Rehearsed = len(all)
	for _, r := range all {
		out.Requests = append(out.Requests, status.Request{Account: r.Subject, Agent: r.Agent, Method: r.Method, Path: r.Path})
		if r.Reason == "" {
			out.Oldest = max(out.Oldest, r.Age)
			continue
		}
		out.Failing = append(out.Failing, status.Failing{
			Agent: r.Agent, Method: r.Method, Path: r.Path, Reason: strings.TrimPrefix(r.Reason, "rockpool: the link to the API server is down: "),
		})
	}
	return nil
}

// describeCache adds what a cache has.
func describeCache(ctx context.Context, out *status.Status, c *cache.Cache, inMemory bool) error {
	db := c.Store()
	if db == nil {
		return nil
	}
	lists, err := c.Lists(ctx)
	if err != nil {
		return err
	}
	stock, err := db.Inventory(ctx)
	if err != nil {
		return err
	}
	var all []status.Collection
	for _, x := range stock {
		all = append(all, status.Collection{
			Collection: inspect.Describe(x, out.Now), InMemory: inMemory,
			Watched: slices.ContainsFunc(lists, func(l cache.List) bool { return l.Watched && l.Scope == x.Scope }),
		})
	}
	status.NoteAskedBy(all, out.Requests)
	out.Collections = append(out.Collections, all...)
	slices.SortStableFunc(out.Collections, func(a, b status.Collection) int {
		return cmp.Or(cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Namespace, b.Namespace))
	})
	documents, err := db.Documents(ctx)
	for _, d := range documents {
		out.Documents.Count++
		out.Documents.Bytes += d.Size
	}
	return err
}
