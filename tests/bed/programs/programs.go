// Package programs builds programs of other projects for tests: servers and controllers that people
// run in clusters. Each is built once, from its Go module as it was published, and then kept in the
// cache directory of the tests' tools. None of them knows Rockpool.
package programs

import (
	_ "embed"
	"strings"
)

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

// Prometheus is the monitoring server with kubernetes_sd only and without its web pages, which are
// not in the module.
var Prometheus = Program{
	Name: "prometheus", Module: "github.com/prometheus/prometheus", Version: "v0.316.0",
	Sum: "h1:f1GRFerhTMKQma+awCoC9T820ecWeGSdF+xAlMHzZzM=", Package: "./cmd/prometheus",
	Tags: "netgo,remove_all_sd,enable_kubernetes_sd",
}

// VMAgent is the collector of VictoriaMetrics. Its Kubernetes client is its own.
var VMAgent = Program{
	Name: "vmagent", Module: "github.com/VictoriaMetrics/VictoriaMetrics", Version: "v1.148.9",
	Sum: "h1:KN+nkgjSIsUZjMW7i8tCweermuI74T2X6s3J1EYUTJU=", Package: "./app/vmagent",
}

// MetricsServer is the API server for the resource use of nodes and pods.
var MetricsServer = Program{
	Name: "metrics-server", Module: "sigs.k8s.io/metrics-server", Version: "v0.9.0",
	Sum: "h1:nlqqZ2H0Xfko8eJC/1qaNVVT17hu4rxndkOi22KTZ4w=", Package: "./cmd/metrics-server",
}

// ExternalDNS keeps the records of DNS providers as Ingresses and Services say.
var ExternalDNS = Program{
	Name: "external-dns", Module: "sigs.k8s.io/external-dns", Version: "v0.21.0",
	Sum: "h1:YAC7ERW32eZAjSdhu44taaZGII6nwz2/wteT+BtpFzM=", Package: ".",
}

// NodeFeatureDiscovery is the master of Node Feature Discovery, which labels nodes as NodeFeature
// objects say.
var NodeFeatureDiscovery = Program{
	Name: "nfd-master", Module: "sigs.k8s.io/node-feature-discovery", Version: "v0.19.0",
	Sum: "h1:9CYm16vjSIbNO5Z1Y67rcrfy51YWmy3+6wjiWzJbrC4=", Package: "./cmd/nfd-master",
	Flags: "-X sigs.k8s.io/node-feature-discovery/pkg/version.version=v0.19.0",
	Commands: [][]string{
		// It is a module of its own, which is not in this one.
		{"mod", "edit", "-replace=sigs.k8s.io/node-feature-discovery/api/nfd=sigs.k8s.io/node-feature-discovery/api/nfd@v0.19.0"},
	},
}

// Traefik is an ingress controller. Its web pages and its module for extensions, which has none, are
// not in the module. It is built without the DNS providers of ACME, because module proxies do not
// have all their libraries, and with an older version of the library for basic authentication, for
// the same reason.
var Traefik = Program{
	Name: "traefik", Module: "github.com/traefik/traefik/v3", Version: "v3.7.13",
	Sum: "h1:T8wy9KuaFzCkmXCqAzDy7t73pBDR1DHrJe3pqXpNXTw=", Package: "./cmd/traefik",
	Files: map[string]string{
		"lego/lego.go":                     lego,
		"pkg/config/dynamic/ext/go.mod":    "module github.com/traefik/traefik/dynamic/ext\n",
		"pkg/config/dynamic/ext/fields.go": "package ext\n\ntype (\n\tHTTP   struct{}\n\tRouter struct{}\n)\n",
	},
	Commands: [][]string{
		{"mod", "edit", "-replace=github.com/abbot/go-http-auth=github.com/containous/go-http-auth@v0.4.1-0.20200324110947-a37a7636d23e"},
		{"run", "lego/lego.go"},
		{"mod", "edit", "-replace=github.com/go-acme/lego/v5=./lego"},
	},
}

// lego copies the ACME library lego into its own directory, without DNS providers.
//
//go:embed lego.go.txt
var lego string

// plugins is CoreDNS's plugin.cfg: a plugin's name and its directory, in order of execution.
func plugins(names ...string) string {
	for i, name := range names {
		if !strings.Contains(name, ":") {
			names[i] = name + ":" + name
		}
	}
	return strings.Join(names, "\n") + "\n"
}
