package doctor

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// metrics are those of the running sidecar, by name.
type metrics map[string]*dto.MetricFamily

// sample is one series.
type sample struct {
	labels map[string]string
	value  float64
}

// of returns the series of a metric whose labels have these values.
func (m metrics) of(name string, labels ...string) (out []sample) {
	for _, series := range m[name].GetMetric() {
		s := sample{labels: map[string]string{}}
		for _, l := range series.Label {
			s.labels[l.GetName()] = l.GetValue()
		}
		s.value = series.GetCounter().GetValue() + series.GetGauge().GetValue() + series.GetUntyped().GetValue()
		matches := true
		for label := range slices.Chunk(labels, 2) { // a name and a value
			matches = matches && s.labels[label[0]] == label[1]
		}
		if matches {
			out = append(out, s)
		}
	}
	return out
}

// sum adds the values of series.
func sum(all []sample) (total float64) {
	for _, s := range all {
		total += s.value
	}
	return total
}

// scrape reads the metrics of the sidecar.
func (x *examination) scrape(ctx context.Context) (metrics, error) {
	ctx, cancel := context.WithTimeout(ctx, x.Timeout)
	defer cancel()
	address := x.Metrics
	if strings.HasPrefix(address, ":") {
		address = "localhost" + address
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %s", resp.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(resp.Body)
}

// sidecar checks that the sidecar runs, with the settings and the version that it should have.
func (x *examination) sidecar(ctx context.Context) {
	var err error
	if x.Metrics == "" {
		x.found(Warn, SidecarSilent, "the sidecar's metrics are off")
		return
	}
	if x.metrics, err = x.scrape(ctx); err != nil {
		x.found(Fail, SidecarSilent, "the sidecar does not serve its metrics: %v", err)
		return
	}
	version := "unknown"
	for _, s := range x.metrics.of("rockpool_build_info") {
		version = s.labels["version"]
	}
	if version != x.Version {
		x.found(Warn, VersionDiffers, "the running sidecar is %s, and this program %s", version, x.Version)
	}
	if n := sum(x.metrics.of("rockpool_config_problems")); n > 0 {
		x.found(Warn, SettingsInvalid, "%.0f settings are invalid and not in effect", n)
		return
	}
	x.ok(Sidecar, "version %s runs", version)
}

// requests checks that the programs use the sidecar, and what it has answered.
func (x *examination) requests(context.Context) {
	if x.metrics == nil {
		return
	}
	all := x.metrics.of("rockpool_requests_total")
	if sum(all) == 0 {
		x.found(Warn, NoRequests, "no program of the pod has asked the sidecar since it has started")
		return
	}
	x.ok(Requests, "%.0f requests: %.0f answered by the API server, %.0f from the cache", sum(all),
		sum(x.metrics.of("rockpool_requests_total", "source", "upstream")), sum(x.metrics.of("rockpool_requests_total", "source", "cache")))
	if refused := x.metrics.of("rockpool_requests_total", "source", "refused"); sum(refused) > 0 {
		x.found(Warn, RequestsRefused, "%.0f requests had no answer: %s", sum(refused), kinds(refused, "verb", "resource", "code"))
	}
	var excluded []string
	for _, s := range x.metrics.of("rockpool_link_bytes_total") {
		agent := s.labels["agent"]
		own := agent == "rockpool-sidecar" || agent == "protocol" || agent == "other"
		if reads := slices.Contains([]string{"get", "list", "watch"}, s.labels["verb"]); reads && !own && !x.Records(agent) && !slices.Contains(excluded, agent) {
			excluded = append(excluded, agent)
		}
	}
	if len(excluded) > 0 {
		x.found(Warn, AgentNotRecorded, "the reads of %s are not recorded", strings.Join(excluded, ", "))
	}
}

// kinds names series by some of their labels, the first ones.
func kinds(all []sample, labels ...string) string {
	const most = 5
	var names []string
	for _, s := range all {
		var values []string
		for _, l := range labels {
			values = append(values, s.labels[l])
		}
		names = append(names, strings.Join(values, " "))
	}
	slices.Sort(names)
	if names = slices.Compact(names); len(names) > most {
		names = append(names[:most], fmt.Sprintf("and %d more", len(names)-most))
	}
	return strings.Join(names, ", ")
}

// permissions checks whether the API server has refused something.
func (x *examination) permissions(context.Context) {
	if x.metrics == nil {
		return
	}
	ok := true
	unsure := slices.DeleteFunc(x.metrics.of("rockpool_filter_reads_refused"), func(s sample) bool { return s.value == 0 })
	if len(unsure) > 0 {
		ok = false
		x.found(Warn, FilterUnsure, "filters keep what they cannot decide: the API server refuses the lists of %s", kinds(unsure, "resource"))
	}
	if refused := x.metrics.of("rockpool_requests_total", "code", "403", "source", "upstream"); sum(refused) > 0 {
		ok = false
		x.found(Warn, Forbidden, "the API server has refused: %s", kinds(refused, "verb", "resource"))
	}
	if refused := slices.DeleteFunc(x.metrics.of("rockpool_reports_total", "result", "refused"), func(s sample) bool { return s.value == 0 }); len(refused) > 0 {
		ok = false
		x.found(Warn, ReportsRefused, "the API server has refused reports of outages: %s", kinds(refused, "kind"))
	}
	if !ok {
		return
	}
	x.ok(Permissions, "the API server has refused nothing")
}
