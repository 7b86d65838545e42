package e2enode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rockpool.dev/tests/bed/cluster"
	"rockpool.dev/tests/bed/freeport"
)

// monitor is a Prometheus at the site, with the configuration of manifests/monitoring.
type monitor struct {
	site *site
	base string
}

// startPrometheus starts Prometheus, which ends with the test.
func startPrometheus(s *site) *monitor {
	s.t.Helper()
	tools, err := cluster.FindMonitoringTools(s.ctx, os.Stderr)
	s.try(err)
	dir := s.t.TempDir()
	const manifests = "../../manifests/monitoring/prometheus/"
	scrape, err := os.ReadFile(manifests + "scrape.yaml")
	s.try(err)
	rules, err := filepath.Abs(manifests + "rules.yaml")
	s.try(err)
	// It is no pod, so that it has no service account.
	files := map[string]string{
		"scrape.yaml":     strings.ReplaceAll(string(scrape), "- role: pod\n", "- role: pod\n    kubeconfig_file: "+testEnv.Kubeconfig()+"\n"),
		"prometheus.yaml": "global: {evaluation_interval: 15s}\nscrape_config_files: [scrape.yaml]\nrule_files: [" + rules + "]\n",
	}
	for name, text := range files {
		s.try(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	address, err := freeport.Address()
	s.try(err)
	log, err := os.Create(filepath.Join(dir, "log"))
	s.try(err)
	ctx, stop := context.WithCancel(context.WithoutCancel(s.ctx))
	cmd := exec.CommandContext(ctx, tools["prometheus"], "--config.file="+filepath.Join(dir, "prometheus.yaml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	cmd.Stdout, cmd.Stderr = log, log
	s.try(cmd.Start())
	s.t.Cleanup(func() {
		stop()
		_ = cmd.Wait() // it was killed
		if text, err := os.ReadFile(log.Name()); err == nil && s.t.Failed() {
			s.t.Logf("--- prometheus\n%s", text)
		}
		_ = log.Close()
	})
	return &monitor{s, "http://" + address + "/api/v1/"}
}

// get asks Prometheus.
func (m *monitor) get(ctx context.Context, path string, into any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, m.base+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%s: %w", raw, err)
	}
	return nil
}

// series are the labels of the series that a query gives.
func (m *monitor) series(ctx context.Context, query string) (out []map[string]string, err error) {
	var answer struct {
		Data struct {
			Result []struct{ Metric map[string]string }
		}
	}
	err = m.get(ctx, "query?query="+url.QueryEscape(query), &answer)
	for _, r := range answer.Data.Result {
		out = append(out, r.Metric)
	}
	return out, err
}

// has waits until a query gives a series.
func (m *monitor) has(query string) (labels map[string]string) {
	m.site.t.Helper()
	m.site.until(query, func(ctx context.Context) error {
		all, err := m.series(ctx, query)
		if err == nil && len(all) == 0 {
			err = errors.New("no series")
		}
		if err == nil {
			labels = all[0]
		}
		return err
	})
	return labels
}

// alert is a firing alert.
type alert struct {
	State               string
	Labels, Annotations map[string]string
}

// firing returns the alert of a name for the site's namespace.
func (m *monitor) firing(ctx context.Context, name string) (*alert, error) {
	var answer struct{ Data struct{ Alerts []alert } }
	if err := m.get(ctx, "alerts", &answer); err != nil {
		return nil, err
	}
	for _, a := range answer.Data.Alerts {
		if a.Labels["alertname"] == name && a.Labels["namespace"] == m.site.namespace && a.State == "firing" {
			return &a, nil
		}
	}
	return nil, fmt.Errorf("of %d alerts none is %s", len(answer.Data.Alerts), name)
}

func TestPrometheusScrapesPodsAndTellsOfACutWithinTwoMinutes(t *testing.T) {
	s := newSite(t, "monitoring")
	s.kubectl("apply", "-f", "testdata/monitoring.yaml")
	p, private := s.pod("measured"), s.pod("private")
	p.recorded()
	m := startPrometheus(s)

	const ours = `{namespace="monitoring"}`
	labels := m.has("rockpool_build_info" + ours)
	for name, want := range map[string]string{"component": "sidecar", "site": "harbour", "workload": "measured", "pod": p.Name, "node": p.Spec.NodeName} {
		if labels[name] != want {
			t.Errorf("label %s is %q, want %q", name, labels[name], want)
		}
	}
	m.has("rockpool_link_state" + ours + " == 3")
	m.has(`rockpool_collection_age_seconds{namespace="monitoring", resource="configmaps"} == 0`)
	m.has(`rockpool_watches{namespace="monitoring", state="open"} >= 1`)
	m.has(`rockpool_link_bytes_total{namespace="monitoring", agent="informer", resource="configmaps", direction="received"} > 0`)
	p.kill("app") // its watch ends, and is counted
	m.has(`rockpool_requests_total{namespace="monitoring", verb="watch", resource="configmaps", source="upstream"} > 0`)
	m.has(`rockpool_watches{namespace="monitoring", state="open"} >= 1`)
	m.has(`rockpool_injector_reviews_total{outcome="injected"} > 0`)
	if all, err := m.series(s.ctx, `up{pod="`+private.Name+`"}`); err != nil || len(all) > 0 {
		t.Errorf("a sidecar with private metrics is scraped: %v, %v", all, err)
	}
	if c, err := net.DialTimeout("tcp", net.JoinHostPort(private.Status.PodIP, "10269"), time.Second); err == nil {
		_ = c.Close()
		t.Error("private metrics are at the pod's address")
	}

	testEnv.node.Link.Cut()
	cut := time.Now()
	var a *alert
	s.until("RockpoolLinkDown fires", func(ctx context.Context) (err error) {
		a, err = m.firing(ctx, "RockpoolLinkDown")
		return err
	})
	if took := time.Since(cut); took > 2*time.Minute {
		t.Errorf("the alert has taken %v", took)
	}
	t.Logf("%v after the cut: %v %v", time.Since(cut).Round(time.Second), a.Labels, a.Annotations)
	if a.Annotations["summary"] != "harbour: the link of monitoring/measured is down" || !strings.Contains(a.Annotations["description"], "It was online 1m") {
		t.Errorf("the alert says %v", a.Annotations)
	}
	m.has(`rockpool_collection_age_seconds{namespace="monitoring", resource="configmaps"} > 60`)
	m.has(`rockpool_watches{namespace="monitoring", state="waiting"} >= 1`)

	testEnv.node.Link.Restore()
	m.has("rockpool_link_state" + ours + " == 3")
	m.has("rockpool_link_offline_seconds_total" + ours + " > 60")
}
