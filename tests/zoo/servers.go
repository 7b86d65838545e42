package zoo

import (
	rbacv1 "k8s.io/api/rbac/v1"

	"rockpool.dev/tests/bed/programs"
)

// The programs here are whole programs of other projects.
var servers = []Program{
	{
		Name: "coredns", Language: "Go", Client: "client-go", Transport: "informers, WatchList", Quick: true,
		Function: "resolves the name of a Service",
		Note:     "built with the plugins of the default Corefile, hosts and file.",
		source:   module(programs.CoreDNS), files: map[string]string{"Corefile": corefile},
		rules: []rbacv1.PolicyRule{
			readable("", "endpoints", "services", "pods", "namespaces"), readable("", "nodes"), readable("discovery.k8s.io", "endpointslices"),
		},
		pod: executable("-conf", filesPath+"/Corefile"), shows: resolves,
	},
	{
		Name: "kube-state-metrics", Language: "Go", Client: "client-go", Transport: "reflectors",
		Function: "has the metric of an Ingress",
		source:   module(programs.KubeStateMetrics),
		rules:    []rbacv1.PolicyRule{readable("networking.k8s.io", "ingresses")},
		pod:      executable("--resources=ingresses", "--port=8080"), shows: countsIngress, Quick: true,
	},
}

// corefile is kubeadm's, without the caches that would keep an old answer.
const corefile = `.:53 {
	errors
	health :8080
	ready :8181
	kubernetes cluster.local in-addr.arpa ip6.arpa {
		pods insecure
		fallthrough in-addr.arpa ip6.arpa
		ttl 0
	}
	loadbalance
	loop
	reload
}
`
