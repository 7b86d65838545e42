package request

import (
	"net/http/httptest"
	"testing"
)

func TestEachRequestHasAClass(t *testing.T) {
	const table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
	tests := []struct {
		name, method, url, accept string
		want                      Class
		unrecorded                bool
	}{
		{"a list", "GET", "/api/v1/pods", "", ClassList, false},
		{"a first page may be the only one", "GET", "/api/v1/pods?limit=1", "", ClassList, false},
		{"a further page belongs to its list", "GET", "/api/v1/pods?continue=x", "", ClassList, false},
		{"an exact old state", "GET", "/api/v1/pods?resourceVersion=5&resourceVersionMatch=Exact", "", ClassList, true},
		{"an object", "GET", "/api/v1/namespaces/n/pods/p", "", ClassGet, false},
		{"a watch", "GET", "/api/v1/pods?watch=1", "", ClassWatch, false},
		{"a deprecated watch path", "GET", "/api/v1/watch/pods", "", ClassWatch, false},
		{"a deprecated watch path, with the sense of its query ignored", "GET", "/api/v1/watch/pods?watch=false", "", ClassWatch, false},
		{"a deprecated watch path of one object", "GET", "/apis/apps/v1/watch/namespaces/n/deployments/d", "", ClassWatch, false},
		{"a deprecated watch path whose name contradicts its selector", "GET", "/api/v1/watch/namespaces/n/pods/p?fieldSelector=metadata.name%3Dq", "", ClassOpaque, false},
		{"a deprecated watch path of a subresource", "GET", "/api/v1/watch/namespaces/n/pods/p/log", "", ClassOpaque, false},
		{"a deprecated watch path without a resource", "GET", "/api/v1/watch/", "", ClassOpaque, false},
		{"a write to a deprecated watch path", "DELETE", "/api/v1/watch/namespaces/n/pods/p", "", ClassOpaque, false},
		{"a HEAD of a deprecated watch path", "HEAD", "/api/v1/watch/pods", "", ClassOpaque, true},
		{"a HEAD of an object", "HEAD", "/api/v1/namespaces/a/pods/b", "", ClassGet, true},
		{"a HEAD of a watch", "HEAD", "/api/v1/pods?watch=true", "", ClassOpaque, true},
		{"a path that begins with two slashes", "GET", "//api/v1/pods", "", ClassOpaque, false},
		{"a path with an empty segment", "GET", "/api/v1/namespaces//pods", "", ClassOpaque, false},
		{"a path with a dot segment", "GET", "/api/v1/../v1/pods", "", ClassOpaque, false},
		{"a path that ends with a slash", "GET", "/api/v1/pods/", "", ClassList, false},
		{"a document by a path that ends with two slashes", "GET", "/api/v1//", "", ClassOpaque, false},
		{"a write to an unclean path", "PUT", "/api/v1/namespaces/a//pods/b", "", ClassOpaque, false},
		{"a list of a shard", "GET", "/api/v1/pods?shardSelector=x", "", ClassVerbatim, false},
		{"a page of a list of a shard", "GET", "/api/v1/pods?shardSelector=x&limit=5", "", ClassVerbatim, false},
		{"a watch of a shard", "GET", "/api/v1/pods?shardSelector=x&watch=true&resourceVersion=5", "", ClassWatch, false},
		{"a deprecated watch path of a shard", "GET", "/api/v1/watch/pods?shardSelector=x", "", ClassWatch, false},
		{"a list with a parameter of an aggregated API", "GET", "/apis/metrics.k8s.io/v1beta1/pods?window=5m", "", ClassVerbatim, false},
		{"an object without some of its fields", "GET", "/api/v1/namespaces/n/pods/p?export=true", "", ClassVerbatim, false},
		{"a parameter in another case, which the API server ignores", "GET", "/api/v1/pods?labelselector=a", "", ClassVerbatim, false},
		{"two selectors, of which the API server takes the first", "GET", "/api/v1/pods?fieldSelector=metadata.name%3Da&fieldSelector=metadata.name%3Db", "", ClassVerbatim, false},
		{"one selector, twice", "GET", "/api/v1/pods?fieldSelector=metadata.name%3Da&fieldSelector=metadata.name%3Da", "", ClassList, false},
		{"a parameter without a value", "GET", "/api/v1/pods?mine", "", ClassVerbatim, false},
		{"a semicolon, which parts parameters for some", "GET", "/api/v1/pods?limit=5;shardSelector=x", "", ClassVerbatim, false},
		{"a parameter that cannot be unescaped", "GET", "/api/v1/pods?limit=%zz", "", ClassVerbatim, false},
		{"a list without a limit", "GET", "/api/v1/pods?limit=0&pretty=true&timeout=32s&timeoutSeconds=5&resourceVersion=0&resourceVersionMatch=NotOlderThan", "", ClassList, false},
		{"a limit that is empty", "GET", "/api/v1/pods?limit=", "", ClassOpaque, false},
		{"a timeout that is empty", "GET", "/api/v1/pods?watch=true&timeoutSeconds=", "", ClassOpaque, false},
		{"a read that is only tried, whatever that is", "GET", "/api/v1/pods?dryRun=All", "", ClassVerbatim, false},
		{"a write with parameters", "POST", "/api/v1/namespaces/n/pods?fieldManager=x&fieldValidation=Strict&mine=1", "", ClassWrite, false},
		{"discovery with a timeout", "GET", "/apis/apps/v1?timeout=32s", "", ClassDiscovery, false},
		{"a table, or what it turns out to be", "GET", "/api/v1/pods", table, ClassList, false},
		{"one object as a table", "GET", "/api/v1/namespaces/n/pods/p", table, ClassGet, false},
		{"a log", "GET", "/api/v1/namespaces/n/pods/p/log", "", ClassOpaque, false},
		{"an exec", "GET", "/api/v1/namespaces/n/pods/p/exec?command=ls", "", ClassOpaque, false},
		{"an exec by POST", "POST", "/api/v1/namespaces/n/pods/p/exec?command=ls", "", ClassOpaque, false},
		{"an attach", "GET", "/api/v1/namespaces/n/pods/p/attach", "", ClassOpaque, false},
		{"a port-forward", "POST", "/api/v1/namespaces/n/pods/p/portforward", "", ClassOpaque, false},
		{"a proxied path of a service", "GET", "/api/v1/namespaces/n/services/s/proxy/x", "", ClassOpaque, false},
		{"a proxied path of a pod", "GET", "/api/v1/namespaces/n/pods/p/proxy", "", ClassOpaque, false},
		{"a proxied path of a node", "GET", "/api/v1/nodes/x/proxy/metrics", "", ClassOpaque, false},
		{"a proxied write", "POST", "/api/v1/namespaces/n/services/s/proxy/x", "", ClassOpaque, false},
		{"a proxied delete", "DELETE", "/api/v1/namespaces/n/services/s/proxy/x", "", ClassOpaque, false},
		{"a deprecated proxied path", "GET", "/api/v1/proxy/namespaces/n/services/s/x", "", ClassOpaque, false},
		{"the scale of a workload", "GET", "/apis/apps/v1/namespaces/n/deployments/d/scale", "", ClassVerbatim, false},
		{"a write of the scale", "PATCH", "/apis/apps/v1/namespaces/n/deployments/d/scale", "", ClassIndirect, false},
		{"a scale that is only tried", "PUT", "/apis/apps/v1/namespaces/n/deployments/d/scale?dryRun=All", "", ClassIndirect, true},
		{"discovery", "GET", "/apis/apps/v1", "", ClassDiscovery, false},
		{"OpenAPI", "GET", "/openapi/v3/apis/apps/v1?hash=X", "", ClassDiscovery, false},
		{"health", "GET", "/healthz", "", ClassOpaque, false},
		{"one check of health", "GET", "/healthz/etcd", "", ClassOpaque, false},
		{"life", "GET", "/livez?verbose", "", ClassOpaque, false},
		{"readiness", "GET", "/readyz", "", ClassOpaque, false},
		{"metrics", "GET", "/metrics", "", ClassOpaque, false},
		{"the server's logs", "GET", "/logs/kube-apiserver.log", "", ClassOpaque, false},
		{"profiles", "GET", "/debug/pprof/heap", "", ClassOpaque, false},
		{"a write", "POST", "/api/v1/namespaces/n/pods", "", ClassWrite, false},
		{"a write that is only tried", "PATCH", "/api/v1/namespaces/n/pods/p?dryRun=All", "", ClassWrite, true},
		{"a write of the status", "PATCH", "/api/v1/namespaces/n/pods/p/status", "", ClassWrite, false},
		{"a delete", "DELETE", "/api/v1/namespaces/n/pods/p", "", ClassWrite, false},
		{"an eviction", "POST", "/api/v1/namespaces/n/pods/p/eviction", "", ClassIndirect, false},
		{"a binding", "POST", "/api/v1/namespaces/n/pods/p/binding", "", ClassIndirect, false},
		{"a token", "POST", "/api/v1/namespaces/n/serviceaccounts/a/token", "", ClassOpaque, false},
		{"a delete of many", "DELETE", "/api/v1/namespaces/n/pods", "", ClassDeleteMany, false},
		{"a question about oneself", "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "", ClassReview, false},
		{"a question about somebody", "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", "", ClassReview, false},
		{"a question about somebody in a namespace", "POST", "/apis/authorization.k8s.io/v1/namespaces/n/localsubjectaccessreviews", "", ClassReview, false},
		{"a question about all rights", "POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", "", ClassReview, false},
		{"a question about a token", "POST", "/apis/authentication.k8s.io/v1/tokenreviews", "", ClassReview, false},
		{"a question about who one is", "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", "", ClassReview, false},
		{"a resource of that name in another group", "POST", "/apis/example.com/v1/tokenreviews", "", ClassWrite, false},
		{"a watch in CBOR, which cannot be cut", "GET", "/api/v1/pods?watch=1", "application/cbor", ClassOpaque, false},
		{"a bad selector", "GET", "/api/v1/pods?labelSelector=%3D%3D%3D", "", ClassOpaque, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, tt.url, nil)
			if tt.accept != "" {
				r.Header.Set("Accept", tt.accept)
			}
			info := Parse(r)
			if info.Class != tt.want || info.Unrecorded != tt.unrecorded {
				t.Fatalf("class %d, unrecorded %v; want %d, %v", info.Class, info.Unrecorded, tt.want, tt.unrecorded)
			}
			r.Header.Set("Impersonate-User", "root")
			if !Parse(r).Unrecorded {
				t.Fatal("the answer to an impersonated request is recorded")
			}
		})
	}
}
