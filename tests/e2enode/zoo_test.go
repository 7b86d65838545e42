package e2enode

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"rockpool.dev/tests/zoo"
)

var (
	zooAll    = flag.Bool("zoo", false, "run all programs of the zoo, not only the quick ones")
	zooUpdate = flag.String("zoo.update", "", "write the zoo's table to docs/clients.md, as of this version of Rockpool")
)

// zooRuns is whether -test.run chooses the test of the zoo, whose programs take minutes to build.
func zooRuns() bool {
	pattern, _, _ := strings.Cut(flag.Lookup("test.run").Value.String(), "/")
	chosen, err := regexp.MatchString(pattern, "TestRealProgramsOfferTheirFunctionThroughAnOutage")
	return err != nil || chosen
}

func TestRealProgramsOfferTheirFunctionThroughAnOutage(t *testing.T) {
	if testEnv == nil {
		t.Skip(notRun)
	}
	bed := zoo.Bed{ControlPlane: testEnv.ControlPlane, Node: testEnv.node, Image: programsImage}
	results, err := zoo.Run(t.Context(), bed, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		t.Run(r.Name, func(t *testing.T) {
			if r.Skipped != "" {
				t.Skipf("NOT VERIFIED: %s", r.Skipped)
			}
			for _, stage := range zoo.Stages {
				if err := r.Failures[stage]; err != nil {
					t.Errorf("%s: %v", stage, err)
				}
			}
			if t.Failed() {
				t.Log(r.Logs)
			}
		})
	}
	t.Logf("\n%s", zoo.Markdown(results))
	if *zooUpdate == "" {
		return
	}
	server, err := testEnv.Client().Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	document := zoo.Document(results, time.Now(), server.GitVersion, *zooUpdate)
	if err := os.WriteFile("../../docs/clients.md", []byte(document), 0o644); err != nil {
		t.Fatal(err)
	}
}
