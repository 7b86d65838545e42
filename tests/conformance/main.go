// Command conformance runs the part of the Kubernetes e2e suite that is about the API, twice, in a
// pod: once directly, and once with a sidecar. It fails if a test passes directly only.
//
// Both pods run the suite as it is, with its in-cluster configuration. They differ in one
// annotation:
//
//	suite ──TLS──▶ 10.96.0.1:443 ──▶ Link ──▶ kube-apiserver              rockpool.dev/inject: "false"
//	suite ──TLS──▶ rockpool-sidecar ──▶ Link ──▶ kube-apiserver           rockpool.dev/inject: "true"
//
// The cluster has controllers and a Node that only says that its pods run. A test that talks to a pod
// is left out: see slice.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"rockpool.dev/tests/bed/cluster"
	"rockpool.dev/tests/bed/pod"
	"rockpool.dev/tests/edge"
)

type options struct {
	focus   string
	procs   int
	seed    int
	timeout time.Duration
	reports string
}

func main() {
	var o options
	flag.StringVar(&o.focus, "focus", focus, "regular expression of the names of the tests to run; those of slice.go are skipped anyway")
	flag.IntVar(&o.procs, "procs", 2, "processes of the suite; tests that must be alone still are")
	flag.IntVar(&o.seed, "seed", 1, "seed of the order of the tests")
	flag.DurationVar(&o.timeout, "timeout", 45*time.Minute, "bound of each of the two runs")
	flag.StringVar(&o.reports, "reports", "dist/conformance", "directory for the reports and the output of both runs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	selected, err := regexp.Compile(o.focus)
	if err != nil {
		return fmt.Errorf("-focus: %w", err)
	}
	if o.reports, err = filepath.Abs(o.reports); err != nil {
		return err
	}
	tools, err := cluster.FindSuiteTools(ctx, os.Stderr)
	if err != nil {
		return err
	}
	control, err := cluster.FindTools(ctx, os.Stderr)
	if err != nil {
		return err
	}
	e, err := edge.Start(ctx, edge.Options{
		APIServerArgs: []string{
			"--etcd-compaction-interval=20s", // one test waits until the API server has had etcd compacted
			"--feature-gates=CoordinatedLeaderElection=true", "--runtime-config=coordination.k8s.io/v1beta1=true",
		},
		Images: map[string]pod.Image{suiteImage: {Files: map[string]string{
			"/ginkgo": tools["ginkgo"], "/e2e.test": tools["e2e.test"], "/kubectl": control.Kubectl,
		}}},
	})
	defer func() { err = errors.Join(err, e.Stop()) }()
	if err != nil {
		return err
	}
	// One test waits until the status of a ResourceQuota has been computed again, every 5 minutes else.
	if err := e.StartControllers(tools, "--resource-quota-sync-period=1m"); err != nil {
		return err
	}
	if err := prepare(ctx, e); err != nil {
		return err
	}
	node, err := startHollowNode(ctx, e.Client())
	if err != nil {
		return err
	}
	defer node.stop()
	var results [2]map[string]result
	for i, inject := range []bool{false, true} {
		if results[i], err = runSuite(ctx, e, inject, o); err != nil {
			return err
		}
	}
	c := compare(results[0], results[1], selected)
	c.print(os.Stdout)
	return c.err()
}

// arguments are the command line of the suite.
func (o options) arguments() []string {
	arguments := []string{
		"/ginkgo", "--procs=" + strconv.Itoa(o.procs), "--seed=" + strconv.Itoa(o.seed), "--timeout=" + o.timeout.String(),
		"--focus=" + o.focus, "--no-color", "--silence-skips",
	}
	for _, s := range skips {
		arguments = append(arguments, "--skip="+s.pattern.String())
	}
	return append(arguments, "/e2e.test", "--",
		"--provider=skeleton", "--kubectl-path=/kubectl", "--report-dir="+reportsMount, "--report-complete-ginkgo",
		"--dump-logs-on-failure=false",                  // they are of nodes
		"--num-nodes=0", "--allowed-not-ready-nodes=-1", // do not wait for nodes
	)
}
