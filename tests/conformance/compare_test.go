package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
)

// report is what Ginkgo writes, shortened.
const report = `[{"SuitePath": "/", "SpecReports": [
  {"LeafNodeType": "SynchronizedBeforeSuite", "State": "passed", "RunTime": 5},
  {"ContainerHierarchyTexts": ["[sig-api-machinery] Watchers"], "LeafNodeType": "It", "LeafNodeText": "should watch [Conformance]", "State": "passed", "RunTime": 7},
  {"ContainerHierarchyTexts": ["[sig-api-machinery] Watchers"], "LeafNodeType": "It", "LeafNodeText": "should break", "State": "failed", "RunTime": 8,
   "Failure": {"Message": "no event"}},
  {"ContainerHierarchyTexts": ["[sig-api-machinery] Tables"], "LeafNodeType": "It", "LeafNodeText": "should need a node", "State": "skipped", "RunTime": 2,
   "Failure": {"Message": "no node"}},
  {"ContainerHierarchyTexts": null, "LeafNodeType": "It", "LeafNodeText": "[sig-node] other", "State": "skipped", "RunTime": 0, "Failure": {}}
]}]`

func TestAReportGivesTheResultOfEachTest(t *testing.T) {
	got, err := parseReport([]byte(report))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]result{
		"[sig-api-machinery] Watchers should watch [Conformance]": {passed, "", 7},
		"[sig-api-machinery] Watchers should break":               {"failed", "no event", 8},
		"[sig-api-machinery] Tables should need a node":           {omitted, "no node", 2},
		"[sig-node] other": {omitted, "", 0},
	} {
		if got[name] != want {
			t.Errorf("%s: %+v, want %+v", name, got[name], want)
		}
	}
	if len(got) != 4 {
		t.Errorf("%d tests, want 4: %v", len(got), got)
	}
}

func TestAReportThatSaysNothingIsAnError(t *testing.T) {
	for name, tt := range map[string]struct{ report, says string }{
		"the set-up has failed": {strings.Replace(report, `"State": "passed", "RunTime": 5`, `"State": "failed", "Failure": {"Message": "no API server"}`, 1), "no API server"},
		"no tests":              {`[{"SpecReports": []}]`, "no tests"},
		"no JSON":               {`<xml>`, "invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parseReport([]byte(tt.report)); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %q", err, tt.says)
			}
		})
	}
}

func TestATestThatRunsTwiceUnderOneNameFailsIfOneFails(t *testing.T) {
	for name, states := range map[string][2]string{"the first fails": {"failed", passed}, "the second fails": {passed, "failed"}} {
		t.Run(name, func(t *testing.T) {
			got, err := parseReport([]byte(`[{"SpecReports": [{"LeafNodeType": "It", "LeafNodeText": "x", "RunTime": 1, "State": "` + states[0] +
				`"}, {"LeafNodeType": "It", "LeafNodeText": "x", "RunTime": 1, "State": "` + states[1] + `"}]}]`))
			if err != nil || !got["x"].failed() {
				t.Errorf("%v %v, want a failure", got, err)
			}
		})
	}
}

func TestTheSidecarIsWorseIfATestPassesDirectlyOnly(t *testing.T) {
	pass, fail, skip, out := result{passed, "", 1}, result{"timedout", "too slow", 1}, result{omitted, "no node", 1}, result{state: omitted}
	for name, tt := range map[string]struct {
		direct, sidecar map[string]result
		fails           bool
		says            string
	}{
		"both pass":                       {map[string]result{"[sig-api-machinery] a": pass}, map[string]result{"[sig-api-machinery] a": pass}, false, "directly       1       0"},
		"the tests that pass are listed":  {map[string]result{"[sig-api-machinery] a": pass}, map[string]result{"[sig-api-machinery] a": pass}, false, "Passed both ways: 1\n- [sig-api-machinery] a\n"},
		"it fails through the sidecar":    {map[string]result{"[sig-api-machinery] a": pass}, map[string]result{"[sig-api-machinery] a": fail}, true, "timedout: too slow"},
		"it skips itself there":           {map[string]result{"[sig-api-machinery] a": pass}, map[string]result{"[sig-api-machinery] a": skip}, true, "skipped: no node"},
		"it is missing there":             {map[string]result{"[sig-api-machinery] a": pass}, map[string]result{"[sig-api-machinery] b": pass}, true, "not in the report"},
		"it did not run there":            {map[string]result{"[sig-api-machinery] a": pass}, map[string]result{"[sig-api-machinery] a": out}, true, "skipped:"},
		"nothing passes directly":         {map[string]result{"[sig-api-machinery] a": fail}, map[string]result{"[sig-api-machinery] a": pass}, true, "not directly"},
		"a test of another group differs": {map[string]result{"[sig-api-machinery] a": pass, "[sig-node] b": pass}, map[string]result{"[sig-api-machinery] a": pass, "[sig-node] b": fail}, false, "directly       1       0"},
		"it fails both ways": {
			map[string]result{"[sig-api-machinery] a": pass, "[sig-api-machinery] b": fail}, map[string]result{"[sig-api-machinery] a": pass, "[sig-api-machinery] b": fail}, false,
			"Did not pass directly",
		},
		"a test that is left out fails": {
			map[string]result{"[sig-api-machinery] a": pass, "[sig-api-machinery] b [Flaky]": pass}, map[string]result{"[sig-api-machinery] a": pass, "[sig-api-machinery] b [Flaky]": fail}, false,
			"Left out (upstream does not rely on it): 1\n- [sig-api-machinery] b [Flaky]\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := compare(tt.direct, tt.sidecar, regexp.MustCompile(focus))
			if err := c.err(); (err != nil) != tt.fails {
				t.Errorf("%v, want an error: %t", err, tt.fails)
			}
			var out bytes.Buffer
			c.print(&out)
			if !strings.Contains(out.String(), tt.says) {
				t.Errorf("no %q in:\n%s", tt.says, &out)
			}
		})
	}
}

func TestOnlyWhatNeedsMoreThanAnAPIServerIsLeftOut(t *testing.T) {
	for name, left := range map[string]bool{
		"[sig-api-machinery] Watchers should observe add, update, and delete watch notifications on configmaps [Conformance]":                                     false,
		"[sig-api-machinery] Servers with support for API chunking should return chunks of results for list calls [Conformance]":                                  false,
		"[sig-api-machinery] CustomResourceDefinition Watch [Privileged:ClusterAdmin] watch on custom resource definition objects [Conformance]":                  false,
		"[sig-api-machinery] AggregatedDiscovery should support aggregated discovery interface [Conformance]":                                                     false,
		"[sig-api-machinery] API Streaming (aka. WatchList) [FeatureGate:WatchList] [Beta] should be requested by informers":                                      false,
		"[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate configmap [Conformance]":                                                    true,
		"[sig-api-machinery] Aggregator Should be able to support the 1.17 Sample API Server using the current Aggregator [LinuxOnly] [Conformance]":              true,
		"[sig-api-machinery] Etcd failure [Disruptive] should recover from SIGKILL":                                                                               true,
		"[sig-api-machinery] OpenAPIV3 should contain OpenAPI V3 for Aggregated APIServer [Serial]":                                                               true,
		"[sig-api-machinery] CustomResourceConversionWebhook [Privileged:ClusterAdmin] should be able to convert a non homogeneous list of CRs [Conformance]":     true,
		"[sig-api-machinery] CustomResourceFieldSelectors [Privileged:ClusterAdmin] CustomResourceFieldSelectors MUST list and watch [Conformance]":               true,
		"[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a custom resource.":                                              false,
		"[sig-api-machinery] CoordinatedLeaderElection [Feature:CoordinatedLeaderElection] [Feature:OffByDefault] [FeatureGate:CoordinatedLeaderElection] [Beta]": false,
	} {
		if got := skipped(name) != ""; got != left {
			t.Errorf("%s: left out %t, want %t", name, got, left)
		}
	}
}

func TestThePageSaysWhatIsLeftOutAndWhy(t *testing.T) {
	page, err := os.ReadFile("../../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range skips {
		if !strings.Contains(string(page), "| "+s.reason+" |") {
			t.Errorf("docs/conformance.md does not say %q, for %s", s.reason, s.pattern)
		}
	}
}
