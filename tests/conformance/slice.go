package main

import "regexp"

// focus selects the slice of the suite: all tests of the special interest group for the API.
const focus = `\[sig-api-machinery\]`

// A skip leaves tests out, by a pattern of their names.
type skip struct {
	pattern *regexp.Regexp
	reason  string
}

// skips are the tests of the slice that do not run. The first one that matches a name gives the
// reason that is printed.
var skips = []skip{
	{regexp.MustCompile(`\[Disruptive\]`), "stops the API server or etcd over SSH"},
	{regexp.MustCompile(`\[Feature:(StorageVersionAPI|ComprehensiveNamespaceDraining)\]`), "needs a feature that is off by default"},
	{regexp.MustCompile(`\[Flaky\]`), "upstream does not rely on it"},
	{regexp.MustCompile(`\] AdmissionWebhook `), "its webhook is a pod, and no pod of the cluster has a process"},
	{regexp.MustCompile(`\] CustomResource(ConversionWebhook|FieldSelectors) `), "its webhook is a pod, and no pod of the cluster has a process"},
	{regexp.MustCompile(`(?i)Aggregator|Aggregated APIServer|sample-apiserver`), "its API server is a pod, and no pod of the cluster has a process"},
}

// skipped returns the reason why a test does not run, or "".
func skipped(name string) string {
	for _, s := range skips {
		if s.pattern.MatchString(name) {
			return s.reason
		}
	}
	return ""
}
