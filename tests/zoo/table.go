package zoo

import (
	_ "embed"
	"slices"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"rockpool.dev/tests/bed/programs"
)

//go:embed scripts/loop.sh
var loopScript string

//go:embed scripts/follow.py
var pythonScript string

// Table lists the programs of the zoo.
var Table = []Program{
	{
		Name: "kubectl", Language: "Go", Client: "kubectl in a shell loop", Transport: "GET", Quick: true,
		source: kubectl, files: map[string]string{"loop.sh": loopScript},
		rules: []rbacv1.PolicyRule{readable("", "configmaps")},
		pod: func(b Bed, i Installed) corev1.PodSpec {
			return spec(b, slices.Concat(machine, beyond(i.Path)), "/bin/sh", filesPath+"/loop.sh", i.Path)
		},
		shows: prints("asked=%s"),
	},
	{
		Name: "client-go-1-20", Language: "Go", Client: "client-go", Transport: "informer, LIST and WATCH", Quick: true,
		source: follower("v0.20.mod"), rules: []rbacv1.PolicyRule{readable("", "configmaps")},
		pod: executable(), shows: prints("followed=%s asked=%s"),
	},
	{
		Name: "client-go", Language: "Go", Client: "client-go", Transport: "informer, WatchList", Quick: true,
		source: follower("v0.37.mod"), rules: []rbacv1.PolicyRule{readable("", "configmaps")},
		pod: executable(), shows: prints("followed=%s asked=%s"),
	},
	{
		Name: "coredns", Language: "Go", Client: "client-go", Transport: "informers, WatchList", Quick: true,
		source: module(programs.CoreDNS), files: map[string]string{"Corefile": corefile},
		rules: []rbacv1.PolicyRule{
			readable("", "endpoints", "services", "pods", "namespaces"), readable("", "nodes"), readable("discovery.k8s.io", "endpointslices"),
		},
		pod: executable("-conf", filesPath+"/Corefile"), shows: resolve,
	},
	{
		Name: "aiohttp", Language: "Python", Client: "aiohttp, as kopf uses it", Transport: "LIST and WATCH", Quick: true,
		source: debian("python3", "python3-aiohttp", "-c", "import aiohttp; print(aiohttp.__version__)"),
		files:  map[string]string{"follow.py": pythonScript}, rules: []rbacv1.PolicyRule{readable("", "configmaps")},
		pod: script("-u", filesPath+"/follow.py"), shows: prints("followed=%s asked=%s"),
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
