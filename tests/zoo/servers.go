package zoo

import (
	"fmt"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"rockpool.dev/tests/bed/node"
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
	{
		Name: "prometheus", Language: "Go", Client: "client-go", Transport: "informers",
		Function: "scrapes the targets of a Service, with its labels",
		Note:     "built with kubernetes_sd only, and without its web pages.",
		source:   module(programs.Prometheus), files: map[string]string{"prometheus.yml": fmt.Sprintf(scrapeConfig, "fallback_scrape_protocol: PrometheusText0.0.4")},
		rules: []rbacv1.PolicyRule{readable("", "services", "pods", "endpoints"), readable("discovery.k8s.io", "endpointslices")},
		pod:   executable("--config.file="+filesPath+"/prometheus.yml", "--storage.tsdb.path=/data"), shows: scrapes("9090"),
	},
	{
		Name: "vmagent", Language: "Go", Client: "VictoriaMetrics's own", Transport: "LIST and WATCH",
		Function: "scrapes the targets of a Service, with its labels",
		source:   module(programs.VMAgent), files: map[string]string{"prometheus.yml": fmt.Sprintf(scrapeConfig, "")},
		rules: []rbacv1.PolicyRule{readable("", "services", "pods", "endpoints"), readable("discovery.k8s.io", "endpointslices")},
		// Nobody takes the measurements.
		pod: executable("-promscrape.config="+filesPath+"/prometheus.yml", "-remoteWrite.url=http://127.0.0.1:1/",
			"-remoteWrite.tmpDataPath=/data", "-httpListenAddr=:8429"),
		shows: scrapes("8429"),
	},
	{
		Name: "metrics-server", Language: "Go", Client: "client-go", Transport: "informers, also of metadata only",
		Function: "measures the nodes with a label",
		Note:     "it presents a certificate to the kubelet, because tokens can be checked only online.",
		source:   module(programs.MetricsServer),
		rules: []rbacv1.PolicyRule{
			readable("", "nodes", "pods", "configmaps", "namespaces"), readable("", "nodes/metrics"),
			{APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"tokenreviews"}, Verbs: []string{"create"}},
			{APIGroups: []string{"authorization.k8s.io"}, Resources: []string{"subjectaccessreviews"}, Verbs: []string{"create"}},
		},
		pod: func(b Bed, i Installed) corev1.PodSpec {
			// The kubelet of the bed asks nobody about tokens, so that it does not need the link.
			credentials := filepath.Join(node.Directory(), "controlplane")
			return spec(b, []string{filepath.Dir(i.Path), credentials}, i.Path, "--secure-port=10250", "--cert-dir=/certificates",
				"--kubelet-preferred-address-types=InternalIP", "--kubelet-insecure-tls", "--metric-resolution=10s", "--kubelet-request-timeout=5s",
				"--kubelet-client-certificate="+credentials+"/kubelet-client.crt", "--kubelet-client-key="+credentials+"/kubelet-client.key")
		},
		shows: measures,
	},
	{
		Name: "external-dns", Language: "Go", Client: "client-go", Transport: "informers",
		Function: "makes the records of an Ingress",
		Note:     "with the provider inmemory.",
		source:   module(programs.ExternalDNS),
		rules:    []rbacv1.PolicyRule{readable("networking.k8s.io", "ingresses")},
		pod: executable("--source=ingress", "--provider=inmemory", "--inmemory-zone=zoo.example", "--registry=noop",
			"--interval=1s", "--log-level=debug"),
		shows: prints("Endpoints generated from ingress: zoo/shop: [%s.zoo.example"),
	},
	{
		Name: "node-feature-discovery", Language: "Go", Client: "client-go", Transport: "informers of custom resources",
		Function: "labels a node as a NodeFeature says",
		source:   module(programs.NodeFeatureDiscovery),
		rules: []rbacv1.PolicyRule{
			readable("", "namespaces", "nodes"), readable("nfd.k8s-sigs.io", "*"),
			{APIGroups: []string{""}, Resources: []string{"nodes", "nodes/status"}, Verbs: []string{"patch", "update"}},
		},
		pod: func(b Bed, i Installed) corev1.PodSpec {
			pod := executable("-port=8080")(b, i)
			pod.Containers[0].Env = []corev1.EnvVar{{Name: "NODE_NAME", Value: node.Name}}
			return pod
		},
		shows: labels,
	},
	{
		Name: "traefik", Language: "Go", Client: "client-go", Transport: "informers",
		Function: "routes requests for an Ingress's host",
		Note:     "built without DNS providers for ACME and without its web pages.",
		source:   module(programs.Traefik),
		rules: []rbacv1.PolicyRule{
			readable("", "services", "secrets", "nodes"), readable("discovery.k8s.io", "endpointslices"),
			readable("networking.k8s.io", "ingresses", "ingressclasses"),
		},
		pod: executable("--providers.kubernetesingress", "--entrypoints.web.address=:8000"), shows: routes,
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

// scrapeConfig has the targets of the Service shop scraped, with the Service's label zoo. %s is a
// further setting, or nothing.
const scrapeConfig = `global: {scrape_interval: 1s}
scrape_configs:
- job_name: shop
  kubernetes_sd_configs: [{role: endpointslice, namespaces: {names: [zoo]}}]
  relabel_configs:
  - {source_labels: [__meta_kubernetes_service_name], regex: shop, action: keep}
  - {regex: __meta_kubernetes_service_label_(zoo), action: labelmap}
  %s
`
