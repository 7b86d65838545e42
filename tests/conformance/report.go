package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// States of a test in a report, as Ginkgo writes them. Every other state, such as "panicked" and
// "timedout", is a failure.
const (
	passed  = "passed"
	omitted = "skipped" // by a pattern, or by the test itself
	pending = "pending"
)

// A result is the result of one test.
type result struct {
	state   string
	message string        // of a failure, or the reason why the test has skipped itself
	took    time.Duration // 0: the test did not run
}

// ran reports whether the test was selected.
func (r result) ran() bool { return r.took > 0 || r.state != omitted && r.state != pending }

func (r result) failed() bool { return r.ran() && r.state != passed && r.state != omitted }

// readReport reads Ginkgo's JSON report (github.com/onsi/ginkgo/v2/types, Report) and returns the
// results by the tests' full names.
func readReport(path string) (map[string]result, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	results, err := parseReport(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return results, nil
}

func parseReport(raw []byte) (map[string]result, error) {
	var suites []struct {
		SpecReports []struct {
			ContainerHierarchyTexts []string
			LeafNodeType            string
			LeafNodeText            string
			State                   string
			RunTime                 time.Duration
			Failure                 struct{ Message string }
		}
	}
	if err := json.Unmarshal(raw, &suites); err != nil {
		return nil, err
	}
	results := map[string]result{}
	for _, suite := range suites {
		for _, spec := range suite.SpecReports {
			name := strings.Join(append(spec.ContainerHierarchyTexts, spec.LeafNodeText), " ")
			r := result{state: spec.State, message: spec.Failure.Message, took: spec.RunTime}
			if spec.LeafNodeType != "It" {
				if r.failed() { // the set-up or the end of the suite, so that the tests say little
					return nil, fmt.Errorf("%s %s: %s", spec.LeafNodeType, spec.State, r.message)
				}
				continue
			}
			if former, found := results[name]; found && former.failed() {
				continue // two tests with one name: the failure counts
			}
			results[name] = r
		}
	}
	if len(results) == 0 {
		return nil, fmt.Errorf("the report has no tests")
	}
	return results, nil
}
