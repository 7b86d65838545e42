// Command tools finds or builds kube-apiserver, etcd and kubectl as the tests use them, and
// prints the path of each. With -node it does so for the programs of a node as well. With
// arguments (names of tools) it prints only theirs.
package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"

	"rockpool.dev/tests/bed/cluster"
)

func main() {
	node := flag.Bool("node", false, "also the programs of a node: kubelet, containerd and what belongs to them")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	paths, err := find(ctx, *node)
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
		path, known := paths[name]
		if !known {
			fmt.Fprintf(os.Stderr, "tools: %q is none of %s\n", name, strings.Join(all, ", "))
			os.Exit(2)
		}
		fmt.Println(path)
	}
}

func find(ctx context.Context, node bool) (map[string]string, error) {
	found, err := cluster.FindTools(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	paths := map[string]string{"kube-apiserver": found.APIServer, "etcd": found.Etcd, "kubectl": found.Kubectl}
	if !node {
		return paths, nil
	}
	more, err := cluster.FindNodeTools(ctx, os.Stderr)
	maps.Copy(paths, more)
	return paths, err
}
