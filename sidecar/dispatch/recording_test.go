package dispatch

import (
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"rockpool.dev/sidecar/api/agent"
)

// recordedEvents returns the counter of recorded events by result.
func recordedEvents(t *testing.T) map[string]float64 {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "rockpool_record_events_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			counts[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
		}
	}
	return counts
}

func TestTwoIdenticalInformersAreRecordedOnce(t *testing.T) {
	g := newHarness(t)
	size := func() int64 {
		g.flush()
		info, err := os.Stat(g.db.Path() + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	one, two := newStream(), newStream()
	g.answerInTurn(one, two)
	read := func(c *client, up stream, text string) {
		t.Helper()
		go up.send(t, text)
		c.want(text)
	}
	state := event("ADDED", "a", 5) + initialEventsEnd
	changes := event("ADDED", "b", 11) + event("ADDED", "c", 12) + event("DELETED", "a", 13)
	c1, c2 := g.open(g.request("GET", watchList)), g.open(g.request("GET", watchList))
	read(c1, one, state)
	g.flush()
	read(c2, two, state)
	g.flush()

	before := recordedEvents(t)
	read(c1, one, changes)
	once, counts := size(), recordedEvents(t)
	if n := counts["applied"] - before["applied"]; n != 3 {
		t.Errorf("%v events of the first informer were applied, want 3", n)
	}
	read(c2, two, changes)
	if twice := size(); twice != once {
		t.Errorf("the second informer made the write-ahead log grow from %d to %d bytes", once, twice)
	}
	after := recordedEvents(t)
	if applied, duplicate := after["applied"]-counts["applied"], after["known"]-counts["known"]; applied != 0 || duplicate != 3 {
		t.Errorf("%v events of the second informer were applied and %v were known, want 0 and 3", applied, duplicate)
	}
	all, err := g.db.Collections(t.Context(), "web", "", "v1", "configmaps")
	if err != nil || len(all) != 1 || all[0].ResourceVersion != "13" {
		t.Errorf("%v, want one collection at 13: %v", all, err)
	}
	if err := errors.Join(one.w.Close(), two.w.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestOnlyConfiguredUserAgentsAreRecorded(t *testing.T) {
	g := newHarness(t)
	app, err := agent.Parse("app")
	if err != nil {
		t.Fatal(err)
	}
	g.Agents.Set(app)
	g.answerAll(200, list)
	for _, client := range []string{"kubectl/v1.36", "app/v2"} {
		g.link.Restore()
		r := g.request("GET", path)
		r.Header.Set("User-Agent", client)
		g.do(r)
		g.link.Cut()
		want := 503
		if client == "app/v2" {
			want = 200
		}
		if code, _ := g.do(g.request("GET", path)); code != want {
			t.Errorf("after a read by %s: %d, want %d", client, code, want)
		}
	}
}

func TestMemoryOnlyResourcesNeverReachTheDisk(t *testing.T) {
	const secrets = "/api/v1/namespaces/shop/secrets"
	const accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
	body := strings.ReplaceAll(list, "ConfigMap", "Secret")
	g := newHarness(t)
	disk := g.Caches.Disk
	g.Caches.Memory = newHarness(t).Caches.Disk
	g.answerAll(200, body)
	g.do(g.request("GET", secrets))
	g.do(g.request("GET", secrets+"/a"))
	asTable := g.request("GET", secrets)
	asTable.Header.Set("Accept", accept)
	g.do(asTable)
	g.link.Cut()
	if code, _ := g.do(g.request("GET", secrets)); code != 200 {
		t.Fatalf("from memory: %d", code)
	}
	g.Caches.Memory = disk // the disk must have recorded nothing
	for _, url := range []string{secrets, secrets + "/a"} {
		if code, _ := g.do(g.request("GET", url)); code != 503 {
			t.Errorf("%s from the disk: %d", url, code)
		}
	}
	asTable = g.request("GET", secrets)
	asTable.Header.Set("Accept", accept)
	if code, _ := g.do(asTable); code != 503 {
		t.Errorf("a Table from the disk: %d", code)
	}
}

func TestACompressedOrMalformedAnswerIsNotRecorded(t *testing.T) {
	g := newHarness(t)
	for name, header := range map[string]http.Header{
		"protobuf": {"Content-Type": {"application/vnd.kubernetes.protobuf"}},
		"gzip":     {"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}},
	} {
		g.link.Restore()
		g.link.SetAnswer(func(*http.Request) (*http.Response, error) {
			resp := textResponse(200, list)
			resp.Header = header
			return resp, nil
		})
		g.do(g.request("GET", path))
		g.link.Cut()
		if code, _ := g.do(g.request("GET", path)); code != 503 {
			t.Errorf("%s: %d", name, code)
		}
	}
}
