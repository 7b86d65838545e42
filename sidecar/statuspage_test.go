package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/api/agent"
	"rockpool.dev/sidecar/api/exclude"
	"rockpool.dev/sidecar/api/filters"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/config"
	"rockpool.dev/sidecar/dispatch"
	"rockpool.dev/sidecar/filter"
	"rockpool.dev/sidecar/meter"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/sidecar/status"
	"rockpool.dev/sidecar/tally"
	"rockpool.dev/sidecar/upstream"
	"rockpool.dev/store"
	"rockpool.dev/tests/eventually"
)

const (
	hiddenValue = "bm9ib2R5IG1heSByZWFkIHRoaXM="
	hiddenToken = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ3ZWIifQ.c2ln"
)

// pageSidecar is a sidecar without a link, with a list on the disk and a Secret in memory.
func pageSidecar(t *testing.T) *sidecar {
	t.Helper()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	config.Register(flags)
	if err := flags.Parse([]string{"--node.name=edge-1"}); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(flags)
	if err != nil {
		t.Fatal(err)
	}
	account := t.TempDir()
	if err := os.WriteFile(filepath.Join(account, "token"), []byte(hiddenToken), 0o600); err != nil {
		t.Fatal(err)
	}
	excluded := &exclude.Current{}
	disk := cache.OpenDisk(t.Context(), cache.Options{Exclude: excluded, Directory: t.TempDir(), MaxSize: 1 << 20, Account: account, Logger: zap.NewNop()})
	t.Cleanup(disk.Close)
	memory := cache.OpenMemory(t.Context(), cache.Options{Exclude: excluded, Directory: filepath.Join(t.TempDir(), "cache"), MaxSize: 1 << 20, Logger: zap.NewNop()})
	t.Cleanup(func() { _ = memory.Close() })
	link, err := upstream.New(upstream.Options{
		Settings: upstream.Settings{Servers: []upstream.Server{{URL: &url.URL{Scheme: "https", Host: "127.0.0.1:1"}}}}, CAFile: filepath.Join(account, "ca.crt"),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var parts errgroup.Group
	for _, run := range []func(context.Context) error{link.Run, disk.Run, memory.Run} {
		parts.Go(func() error { return run(ctx) })
	}
	t.Cleanup(func() {
		stop()
		if err := parts.Wait(); err != nil {
			t.Error(err)
		}
	})
	s := &sidecar{
		cfg: cfg, flags: flags, started: time.Now().Add(-time.Hour), log: zap.NewNop(), recent: &status.Recent{},
		meter: meter.New(func(context.Context) *request.Info { return &request.Info{} }), disk: disk, upstream: link,
		caches: cache.Caches{Disk: disk.Cache, Memory: memory, Exclude: excluded},
	}
	s.dispatcher = dispatch.New(dispatch.Options{
		Upstream: link, Caches: s.caches, Agents: agent.NewCurrent(cfg.Cache.Agents), Credentials: principal.NewCredentials(nil, nil), Logger: zap.NewNop(),
	})
	s.filter = filter.New(filter.Options{Next: s.dispatcher, Logger: zap.NewNop()}, filter.Settings{})
	s.page = &status.Handler{Status: s.status}
	recordList(t, disk.Store(), "configmaps", "hello")
	recordList(t, memory.Store(), "secrets", hiddenValue)
	disk.Link("offline", "no route to the cloud")
	eventually.True(t, "the link's history has the cut", func() bool {
		changes, err := disk.Store().Links(t.Context(), time.Time{})
		return err == nil && len(changes) > 0
	})
	return s
}

// recordList records a list with one object.
func recordList(t *testing.T, db *store.DB, resource, value string) {
	t.Helper()
	scope := store.Scope{Principal: "web", Version: "v1", Resource: resource, Representation: "object", Namespace: "shop", MediaType: "application/json"}
	list := store.NewSnapshot(scope, store.Evidence{Asked: db.Next(), Told: db.Next(), Read: store.Latest})
	err := db.Update(t.Context(), func(tx *store.Tx) error {
		o := store.Object{Namespace: "shop", Name: "a", UID: "u", ResourceVersion: "1", Encoding: store.JSONBare, Payload: []byte(`{"data":{"a":"` + value + `"}}`)}
		if err := list.Add(tx, o); err != nil {
			return err
		}
		return list.Commit(tx, store.CollectionMeta{Kind: "X", APIVersion: "v1", ResourceVersion: "17"})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// admin serves the sidecar's metrics and page at an address.
func admin(t *testing.T, s *sidecar, address string) (port string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.serveAdmin(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

func fetch(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestTheStatusPageTellsWhatTheSidecarKnows(t *testing.T) {
	s := pageSidecar(t)
	s.recent.Note(time.Now(), "an earlier error")
	at := "http://127.0.0.1:" + admin(t, s, "127.0.0.1:0")
	code, text := fetch(t, at+status.JSONPath)
	var got status.Status
	if err := json.Unmarshal([]byte(text), &got); err != nil || code != http.StatusOK {
		t.Fatalf("%d, %v: %s", code, err, text)
	}
	if got.Node != "edge-1" || got.Link.State != "suspect" || len(got.Problems) > 0 || len(got.Settings) != len(config.Keys()) {
		t.Errorf("%+v", got)
	}
	if len(got.Addresses) != 1 || got.Addresses[0].URL != "https://127.0.0.1:1" || got.Addresses[0].State != "unknown" {
		t.Errorf("addresses %+v", got.Addresses)
	}
	if i := slices.IndexFunc(got.Link.Changes, func(c status.Change) bool { return c.State == "offline" && c.Reason == "no route to the cloud" }); i < 0 {
		t.Errorf("changes %+v", got.Link.Changes)
	}
	if len(got.Errors) != 1 || got.Errors[0].Text != "an earlier error" {
		t.Errorf("errors %+v", got.Errors)
	}
	var lists []string
	for _, c := range got.Collections {
		memory := ""
		if c.InMemory {
			memory = " in memory"
		}
		lists = append(lists, c.Resource+" "+c.State+" "+c.At+memory)
	}
	if want := []string{"configmaps complete 17", "secrets complete 17 in memory"}; !slices.Equal(lists, want) {
		t.Errorf("lists %q, want %q", lists, want)
	}
	code, page := fetch(t, at+status.PagePath)
	if code != http.StatusOK || !strings.Contains(page, "no route to the cloud") || !strings.Contains(page, "edge-1") {
		t.Errorf("%d: %s", code, page)
	}
	for _, hidden := range []string{hiddenValue, hiddenToken} {
		if strings.Contains(page, hidden) || strings.Contains(text, hidden) {
			t.Errorf("%s is shown", hidden)
		}
	}
	if code, metrics := fetch(t, at+"/metrics"); code != http.StatusOK || !strings.Contains(metrics, "rockpool_build_info") {
		t.Errorf("metrics: %d", code)
	}
}

// With metrics_address: pod, other pods reach the port.
func TestTheStatusPageIsNotWhereOtherPodsReachTheMetrics(t *testing.T) {
	s := pageSidecar(t)
	at := "http://127.0.0.1:" + admin(t, s, ":0")
	for _, path := range []string{status.PagePath, status.JSONPath} {
		if code, text := fetch(t, at+path); code != http.StatusNotFound || strings.Contains(text, "configmaps") {
			t.Errorf("%s: %d", path, code)
		}
	}
	if code, _ := fetch(t, at+"/metrics"); code != http.StatusOK {
		t.Errorf("metrics: %d", code)
	}
}

// answers is an API server that lets nobody see Services.
type answers struct{}

func (answers) RoundTrip(r *http.Request) (*http.Response, error) {
	code, body := http.StatusOK, `{"kind":"EndpointSliceList","apiVersion":"discovery.k8s.io/v1","metadata":{"resourceVersion":"1"},"items":[]}`
	if strings.HasSuffix(r.URL.Path, "/services") {
		code, body = http.StatusForbidden, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`
	}
	header := http.Header{"Content-Type": {"application/json"}, "Audit-Id": {"1"}}
	return &http.Response{StatusCode: code, Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func TestThePageSaysWhatFiltersMayNotSee(t *testing.T) {
	s := pageSidecar(t)
	choice, err := filters.ParseChoice("servicetopology")
	if err != nil {
		t.Fatal(err)
	}
	s.filter = filter.New(filter.Options{
		Next: answers{}, NodeName: "edge-1", Subject: func(http.Header) string { return "web" },
		Authorization: func(_, otherwise string) string { return otherwise }, Logger: zap.NewNop(), Repeated: tally.New(zap.NewNop(), clock.RealClock{}),
	}, filter.Settings{Settings: filters.Settings{Choice: choice}})
	defer s.filter.Close()
	resp, err := s.filter.RoundTrip(httptest.NewRequest(http.MethodGet, "/apis/discovery.k8s.io/v1/endpointslices", nil))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	const want = "the API server refuses the lists of services"
	eventually.True(t, want, func() bool {
		return slices.ContainsFunc(s.status(t.Context()).Problems, func(p string) bool { return strings.Contains(p, want) })
	})
}

func TestWithoutACacheThePageSaysSo(t *testing.T) {
	s := pageSidecar(t)
	s.caches.Disk, s.caches.Memory = &cache.Cache{}, &cache.Cache{}
	got := s.status(t.Context())
	if len(got.Problems) != 1 || !strings.Contains(got.Problems[0], "no cache on the disk") || len(got.Collections) > 0 {
		t.Errorf("%+v", got.Problems)
	}
}

// During a cut, kubectl port-forward does not reach the node. The command works with any exec there.
func TestTheCommandStatusPrintsThePageAndTheJSON(t *testing.T) {
	s := pageSidecar(t)
	directory, err := os.MkdirTemp("", "status") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	s.cfg.Private.Directory = directory
	t.Setenv("ROCKPOOL_PRIVATE_DIRECTORY", directory)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	ask := func(args ...string) (string, error) {
		var out strings.Builder
		cmd := command(new(func(context.Context) error))
		cmd.SetArgs(append([]string{"status"}, args...))
		cmd.SetOut(&out)
		err := cmd.ExecuteContext(t.Context())
		return out.String(), err
	}
	if _, err := ask(); err == nil || !strings.Contains(err.Error(), "must run in this container") {
		t.Errorf("without a sidecar: %v", err)
	}
	go func() { ended <- s.serveDoctor(ctx) }()
	var text string
	eventually.NoError(t, "the sidecar answers", func() error {
		text, err = ask()
		return err
	})
	var got status.Status
	if err := json.Unmarshal([]byte(text), &got); err != nil || got.Node != "edge-1" || len(got.Collections) != 2 {
		t.Errorf("%v: %s", err, text)
	}
	if page, err := ask("--html"); err != nil || !strings.HasPrefix(page, "<!doctype html>") || !strings.Contains(page, "no route to the cloud") {
		t.Errorf("%v: %s", err, page)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
