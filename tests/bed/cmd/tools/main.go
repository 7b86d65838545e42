// Command tools finds or builds kube-apiserver, etcd and kubectl for the tests, and prints their
// paths; with -node also those of a node's programs, with -suite those of the Kubernetes e2e suite,
// with -monitoring those of Prometheus.
// Arguments are names of tools: it then prints only the paths of these.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"

	"rockpool.dev/tests/bed/cluster"
)

func main() {
	node := flag.Bool("node", false, "also find the programs of a node: kubelet, containerd, runc and others")
	suite := flag.Bool("suite", false, "also find the Kubernetes e2e suite: e2e.test, ginkgo and the controllers")
	monitoring := flag.Bool("monitoring", false, "also find prometheus and promtool")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	paths, err := find(ctx, *node, *suite, *monitoring)
	if err != nil {
		fmt.Fprintln(os.Stderr, "tools:", err)
		os.Exit(1)
	}
	all := slices.Sorted(maps.Keys(paths))
	names := flag.Args()
	if len(names) == 0 {
		names = all
	}
	for _, name := range names {
		path, found := paths[name]
		if !found {
			fmt.Fprintf(os.Stderr, "tools: %q is not one of %s\n", name, strings.Join(all, ", "))
			os.Exit(2)
		}
		fmt.Println(path)
	}
}

func find(ctx context.Context, node, suite, monitoring bool) (map[string]string, error) {
	found, err := cluster.FindTools(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	paths := map[string]string{"kube-apiserver": found.APIServer, "etcd": found.Etcd, "kubectl": found.Kubectl}
	for _, more := range []struct {
		wanted bool
		find   func(context.Context, io.Writer) (cluster.NodeTools, error)
	}{{node, cluster.FindNodeTools}, {suite, cluster.FindSuiteTools}, {monitoring, cluster.FindMonitoringTools}} {
		if !more.wanted {
			continue
		}
		found, err := more.find(ctx, os.Stderr)
		if err != nil {
			return nil, err
		}
		maps.Copy(paths, found)
	}
	return paths, nil
}
