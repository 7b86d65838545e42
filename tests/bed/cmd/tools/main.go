// Command tools finds or builds kube-apiserver, etcd and kubectl as the tests use them, and
// prints the path of each. With arguments (names of tools) it prints only theirs.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"rockpool.dev/tests/bed"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	found, err := bed.FindTools(ctx, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "tools:", err)
		os.Exit(1)
	}
	paths := map[string]string{"kube-apiserver": found.APIServer, "etcd": found.Etcd, "kubectl": found.Kubectl}
	names := os.Args[1:]
	if len(names) == 0 {
		names = []string{"kube-apiserver", "etcd", "kubectl"}
	}
	for _, name := range names {
		path, known := paths[name]
		if !known {
			fmt.Fprintf(os.Stderr, "tools: %q is none of kube-apiserver, etcd, kubectl\n", name)
			os.Exit(2)
		}
		fmt.Println(path)
	}
}
