// Package monitoring tests manifests/monitoring with the tools of Prometheus.
package monitoring

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"rockpool.dev/tests/bed/cluster"
)

const manifests = "../../manifests/monitoring/"

// rule is an alert rule.
type rule struct {
	Alert, Expr         string
	Labels, Annotations map[string]string
}

type rules struct {
	Groups []struct {
		Name  string
		Rules []rule
	}
}

func readRules(t *testing.T) rules {
	t.Helper()
	var r rules
	readYAML(t, manifests+"prometheus/rules.yaml", &r)
	if len(r.Groups) != 1 || len(r.Groups[0].Rules) < 6 {
		t.Fatalf("the rules are %+v", r)
	}
	return r
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err == nil {
		err = yaml.Unmarshal(raw, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// queries are those of the dashboard, by panel.
func queries(t *testing.T) map[string]string {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	raw, err := os.ReadFile(manifests + "dashboard.json")
	if err == nil {
		err = json.Unmarshal(raw, &dashboard)
	}
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			out[p.Title] = target.Expr
		}
	}
	if len(out) < 10 {
		t.Fatalf("the dashboard has %d panels", len(out))
	}
	return out
}

func TestTheOperatorsRulesAreThoseOfTheFile(t *testing.T) {
	var want map[string]any
	readYAML(t, manifests+"prometheus/rules.yaml", &want)
	var object struct{ Spec map[string]any }
	readYAML(t, manifests+"prometheusrule.yaml", &object)
	if !reflect.DeepEqual(object.Spec, want) {
		t.Errorf("prometheusrule.yaml has other rules than prometheus/rules.yaml:\n%v\n%v", object.Spec, want)
	}
}

func TestEveryAlertHasARunbook(t *testing.T) {
	page, err := os.ReadFile("../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	var alerts []string
	for _, r := range readRules(t).Groups[0].Rules {
		alerts = append(alerts, r.Alert)
		if want := "https://rockpool.dev/docs/monitoring.md#" + strings.ToLower(r.Alert); r.Annotations["runbook_url"] != want {
			t.Errorf("%s: runbook_url is %q, want %q", r.Alert, r.Annotations["runbook_url"], want)
		}
	}
	var sections []string
	for _, m := range regexp.MustCompile(`(?m)^### (Rockpool\w+)$`).FindAllStringSubmatch(string(page), -1) {
		sections = append(sections, m[1])
	}
	if !slices.Equal(sections, alerts) {
		t.Errorf("docs/monitoring.md has sections for %q, and there are the alerts %q", sections, alerts)
	}
}

var metricName = regexp.MustCompile(`\brockpool_[a-z_]+`)

// Every metric of a rule or a panel is one that the programs have.
func TestEveryMetricThatIsAskedForExists(t *testing.T) {
	declared := map[string]bool{}
	for _, root := range []string{"../../sidecar", "../../injector"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			for _, m := range regexp.MustCompile(`(?:Name: *|NewDesc\()"(rockpool_[a-z_]+)"`).FindAllSubmatch(source, -1) {
				declared[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(declared) < 30 {
		t.Fatalf("only %d metrics are found", len(declared))
	}
	asked := queries(t)
	for _, r := range readRules(t).Groups[0].Rules {
		asked[r.Alert] = r.Expr
	}
	for where, expr := range asked {
		for _, name := range metricName.FindAllString(expr, -1) {
			if !declared[name] && !declared[strings.TrimSuffix(name, "_bucket")] {
				t.Errorf("%s: there is no metric %s", where, name)
			}
		}
	}
}

func TestPromtoolAcceptsTheFilesAndTheAlertsFireInTime(t *testing.T) {
	tools, err := cluster.FindMonitoringTools(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	promtool := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), tools["promtool"], args...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
	promtool("check", "rules", "--lint-fatal", manifests+"prometheus/rules.yaml")
	promtool("test", "rules", "testdata/rules.yaml")

	dir := t.TempDir()
	scrape, err := filepath.Abs(manifests + "prometheus/scrape.yaml")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	promtool("check", "config", write("prometheus.yaml", "scrape_config_files: ["+scrape+"]\n"))
	var text bytes.Buffer
	text.WriteString("groups:\n- name: dashboard\n  rules:\n")
	grafana := strings.NewReplacer("$__rate_interval", "5m", "$namespace", ".*", "$site", ".*")
	for title, expr := range queries(t) {
		line, err := json.Marshal(grafana.Replace(expr))
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString("  - {record: " + metricName.FindString(expr) + ":panel, expr: " + string(line) + ", labels: {panel: " + string(must(json.Marshal(title))) + "}}\n")
	}
	promtool("check", "rules", write("dashboard.yaml", text.String()))
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func TestTheManifestsAreWhatKustomizeMakes(t *testing.T) {
	tools, err := cluster.FindKubectl(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), tools.Kubectl, "kustomize", manifests).Output()
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for document := range strings.SplitSeq(string(out), "\n---\n") {
		var object struct {
			Kind     string
			Metadata struct{ Namespace string }
			Data     map[string]string
		}
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			t.Fatal(err)
		}
		kinds[object.Kind]++
		if object.Metadata.Namespace != "rockpool-system" {
			t.Errorf("%s is in namespace %q", object.Kind, object.Metadata.Namespace)
		}
		if object.Kind == "ConfigMap" && !json.Valid([]byte(object.Data["rockpool.json"])) {
			t.Error("the dashboard is not in its ConfigMap")
		}
	}
	if want := map[string]int{"PodMonitor": 2, "PrometheusRule": 1, "ConfigMap": 1}; !reflect.DeepEqual(kinds, want) {
		t.Errorf("kustomize makes %v, want %v", kinds, want)
	}
}
