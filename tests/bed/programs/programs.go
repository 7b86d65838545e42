// Package programs builds programs of other projects for tests: servers and controllers that people
// run in clusters. Each is built once, from its Go module as it was published, and then kept in the
// cache directory of the tests' tools. None of them knows Rockpool.
package programs

import "strings"

// CoreDNS is the cluster's DNS server with the plugins of kubeadm's default Corefile, and hosts and
// file. The other plugins need the libraries of all clouds, which takes minutes to build.
var CoreDNS = Program{
	Name: "coredns", Module: "github.com/coredns/coredns", Version: "v1.15.0",
	Sum: "h1:OBT+OEyHVdUiVxPhrNlC5XZVq3RkSxzQXfZQ76gm5ck=", Package: ".",
	Files: map[string]string{"plugin.cfg": plugins("reload", "ready", "health", "prometheus:metrics", "errors", "log",
		"loadbalance", "cache", "hosts", "kubernetes", "file", "loop", "forward", "whoami")},
	Commands: [][]string{{"run", "directives_generate.go"}},
}

// KubeStateMetrics serves metrics about the objects of a cluster.
var KubeStateMetrics = Program{
	Name: "kube-state-metrics", Module: "k8s.io/kube-state-metrics/v2", Version: "v2.20.0",
	Sum: "h1:edO7hyGs1MqZhbUbzWW1YRTV3afZOIbvHNvOCaJjuU4=", Package: ".",
}

// plugins is CoreDNS's plugin.cfg: a plugin's name and its directory, in order of execution.
func plugins(names ...string) string {
	for i, name := range names {
		if !strings.Contains(name, ":") {
			names[i] = name + ":" + name
		}
	}
	return strings.Join(names, "\n") + "\n"
}
