package request

import (
	gocmp "cmp"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rockpool.dev/sidecar/api/wire"
)

func TestParseRequest(t *testing.T) {
	any := []MediaType{{Type: "*/*", raw: "*/*"}}
	tests := []struct {
		name, method, url string
		want              Info
	}{
		{"a list in a namespace", "GET", "/api/v1/namespaces/shop/configmaps?limit=500",
			Info{Verb: List, IsResource: true, Version: "v1", Resource: "configmaps", Namespace: "shop", Options: Options{Limit: 500}}},
		{"a list over all namespaces of a named group", "GET", "/apis/apps/v1/deployments",
			Info{Verb: List, IsResource: true, Group: "apps", Version: "v1", Resource: "deployments"}},
		{"an object", "GET", "/api/v1/namespaces/shop/pods/web",
			Info{Verb: Get, IsResource: true, Version: "v1", Resource: "pods", Namespace: "shop", Name: "web"}},
		{"a subresource", "GET", "/api/v1/namespaces/shop/pods/web/log",
			Info{Verb: Get, IsResource: true, Version: "v1", Resource: "pods", Namespace: "shop", Name: "web", Subresource: "log"}},
		{"a path below a subresource", "GET", "/api/v1/namespaces/shop/services/web/proxy/a/b",
			Info{Verb: Get, IsResource: true, Version: "v1", Resource: "services", Namespace: "shop", Name: "web", Subresource: "proxy/a/b"}},
		{"a namespace", "GET", "/api/v1/namespaces/shop",
			Info{Verb: Get, IsResource: true, Version: "v1", Resource: "namespaces", Name: "shop"}},
		{"the status of a namespace", "PUT", "/api/v1/namespaces/shop/status",
			Info{Verb: Update, IsResource: true, Version: "v1", Resource: "namespaces", Name: "shop", Subresource: "status"}},
		{"all namespaces", "GET", "/api/v1/namespaces",
			Info{Verb: List, IsResource: true, Version: "v1", Resource: "namespaces"}},
		{"a watch with initial events", "GET", "/api/v1/pods?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=301",
			Info{Verb: Watch, IsResource: true, Version: "v1", Resource: "pods", Options: Options{Watch: true, SendInitialEvents: true, HasInitialEvents: true, AllowWatchBookmarks: true, ResourceVersionMatch: "NotOlderThan", Timeout: 301 * time.Second}}},
		{"watch=false is a list", "GET", "/api/v1/pods?watch=false",
			Info{Verb: List, IsResource: true, Version: "v1", Resource: "pods"}},
		{"watch=False, as Python sends it, is a list", "GET", "/api/v1/pods?watch=False",
			Info{Verb: List, IsResource: true, Version: "v1", Resource: "pods"}},
		{"any other value of watch is a watch", "GET", "/api/v1/pods?watch=yes",
			Info{Verb: Watch, IsResource: true, Version: "v1", Resource: "pods", Options: Options{Watch: true}}},
		{"watch without a value is a watch", "GET", "/api/v1/pods?watch",
			Info{Verb: Watch, IsResource: true, Version: "v1", Resource: "pods", Options: Options{Watch: true}}},
		{"other flags are read like watch", "GET", "/api/v1/pods?watch&sendInitialEvents&allowWatchBookmarks=False",
			Info{Verb: Watch, IsResource: true, Version: "v1", Resource: "pods", Options: Options{Watch: true, SendInitialEvents: true, HasInitialEvents: true}}},
		{"the first of two values counts", "GET", "/api/v1/pods?watch=0&watch=1",
			Info{Verb: List, IsResource: true, Version: "v1", Resource: "pods", Options: Options{Narrowed: true}}},
		{"a deprecated watch path", "GET", "/api/v1/watch/namespaces/shop/pods?resourceVersion=5",
			Info{Verb: Watch, Path: "/api/v1/namespaces/shop/pods", IsResource: true, Version: "v1", Resource: "pods", Namespace: "shop", Options: Options{ResourceVersion: "5"}}},
		{"a deprecated watch path of a group called watch", "GET", "/apis/watch/v1/watch/pods",
			Info{Verb: Watch, Path: "/apis/watch/v1/pods", IsResource: true, Group: "watch", Version: "v1", Resource: "pods"}},
		{"a deprecated watch path of a resource called watch, which has no other path", "GET", "/apis/g/v1/watch/watch",
			Info{Verb: Watch, IsResource: true, Legacy: true, Group: "g", Version: "v1", Resource: "watch"}},
		{"a deprecated watch path of one object", "GET", "/apis/apps/v1/watch/namespaces/shop/deployments/web",
			Info{Verb: Watch, Path: "/apis/apps/v1/namespaces/shop/deployments", IsResource: true, Group: "apps", Version: "v1", Resource: "deployments", Namespace: "shop", Options: Options{FieldSelector: "metadata.name=web"}}},
		{"a deprecated watch path of one object whose name is escaped", "GET", "/apis/rbac.authorization.k8s.io/v1/watch/clusterroles/system%3Aa%2Cb",
			Info{Verb: Watch, Path: "/apis/rbac.authorization.k8s.io/v1/clusterroles", IsResource: true, Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles", Options: Options{FieldSelector: `metadata.name=system:a\,b`}}},
		{"a deprecated watch path of one object with a selector of it", "GET", "/api/v1/watch/namespaces/shop/pods/web?fieldSelector=status.phase%3DRunning,metadata.name%3Dweb",
			Info{Verb: Watch, Path: "/api/v1/namespaces/shop/pods", IsResource: true, Version: "v1", Resource: "pods", Namespace: "shop", Options: Options{FieldSelector: "metadata.name=web,status.phase=Running"}}},
		{"a deprecated watch path of a namespace", "GET", "/api/v1/watch/namespaces/shop",
			Info{Verb: Watch, Path: "/api/v1/namespaces", IsResource: true, Version: "v1", Resource: "namespaces", Options: Options{FieldSelector: "metadata.name=shop"}}},
		{"a deprecated watch path of all namespaces", "GET", "/api/v1/watch/namespaces/",
			Info{Verb: Watch, Path: "/api/v1/namespaces", IsResource: true, Version: "v1", Resource: "namespaces"}},
		{"selectors are sorted", "GET", "/api/v1/pods?labelSelector=b%3D2,a+in+(y,x)&fieldSelector=status.phase%3DRunning,metadata.name%3Dx",
			Info{Verb: List, IsResource: true, Version: "v1", Resource: "pods", Options: Options{LabelSelector: "a in (x,y),b=2", FieldSelector: "metadata.name=x,status.phase=Running"}}},
		{"a selector that does not parse is invalid", "GET", "/api/v1/pods?labelSelector=%3D%3D%3D",
			Info{Verb: List, IsResource: true, Version: "v1", Resource: "pods", Options: Options{Invalid: true}}},
		{"a limit that is not a number is invalid", "GET", "/api/v1/pods?limit=x",
			Info{Verb: List, IsResource: true, Version: "v1", Resource: "pods", Options: Options{Invalid: true}}},
		{"a create", "POST", "/api/v1/namespaces/shop/events",
			Info{Verb: Create, IsResource: true, Version: "v1", Resource: "events", Namespace: "shop"}},
		{"a dry run", "POST", "/api/v1/namespaces/shop/events?dryRun=All",
			Info{Verb: Create, IsResource: true, Version: "v1", Resource: "events", Namespace: "shop", Options: Options{DryRun: true, Narrowed: true}}},
		{"a patch", "PATCH", "/apis/apps/v1/namespaces/shop/deployments/web/scale",
			Info{Verb: Patch, IsResource: true, Group: "apps", Version: "v1", Resource: "deployments", Namespace: "shop", Name: "web", Subresource: "scale"}},
		{"a delete of a collection", "DELETE", "/api/v1/namespaces/shop/pods",
			Info{Verb: DeleteCollection, IsResource: true, Version: "v1", Resource: "pods", Namespace: "shop"}},
		{"discovery of a group", "GET", "/apis/apps/v1", Info{Verb: "get"}},
		{"health", "GET", "/healthz", Info{Verb: "get"}},
		{"the root", "GET", "/", Info{Verb: "get"}},
		{"a deprecated prefix without a resource", "GET", "/api/v1/watch/",
			Info{Verb: Watch, IsResource: true, Legacy: true, Version: "v1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, tt.url, nil)
			tt.want.Path, tt.want.Accept = gocmp.Or(tt.want.Path, r.URL.Path), any
			got := Parse(r)
			got.Class, got.Unrecorded = 0, false // see TestEachRequestHasAClass
			if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(MediaType{})); d != "" {
				t.Fatal(d)
			}
		})
	}
}

func TestDocumentsDescribeTheAPI(t *testing.T) {
	for path, want := range map[string]bool{
		"/api": true, "/api/": true, "/api/v1": true, "/apis": true, "/apis/apps": true, "/apis/apps/v1": true, "/version": true,
		"/openapi/v2": true, "/openapi/v3": true, "/openapi/v3/apis/apps/v1": true, "/openid/v1/jwks": true,
		"/healthz": false, "/livez": false, "/readyz/etcd": false, "/metrics": false, "/logs/x": false, "/": false,
		"/api/v1/pods": false,
	} {
		if info := Parse(httptest.NewRequest(http.MethodGet, path, nil)); info.IsDocument() != want {
			t.Errorf("%s: document %v, want %v", path, info.IsDocument(), want)
		}
	}
	if info := Parse(httptest.NewRequest(http.MethodPost, "/version", nil)); info.IsDocument() {
		t.Error("a POST is a document")
	}
}

func TestReviewsArePOSTsThatChangeNothing(t *testing.T) {
	const authz, authn = "/apis/authorization.k8s.io/v1/", "/apis/authentication.k8s.io/v1/"
	tests := []struct {
		method, path       string
		isReview, hasToken bool
	}{
		{"POST", authz + "selfsubjectaccessreviews", true, false},
		{"POST", authz + "subjectaccessreviews", true, false},
		{"POST", authz + "selfsubjectrulesreviews", true, false},
		{"POST", authz + "namespaces/shop/localsubjectaccessreviews", true, false},
		{"POST", authn + "selfsubjectreviews", true, false},
		{"POST", authn + "tokenreviews", true, true},
		{"POST", authn + "tokenreviews/x", false, false},
		{"GET", authn + "tokenreviews", false, false},
		{"PUT", authz + "subjectaccessreviews", false, false},
		{"POST", authz + "somethingelse", false, false},
		{"POST", "/apis/example.com/v1/tokenreviews", false, false},
		{"POST", "/api/v1/namespaces/shop/serviceaccounts/web/token", false, false},
		{"POST", "/version", false, false},
	}
	for _, tt := range tests {
		info := Parse(httptest.NewRequest(tt.method, tt.path, nil))
		if info.IsReview() != tt.isReview || info.CarriesToken() != tt.hasToken {
			t.Errorf("%s %s: review %v, token %v", tt.method, tt.path, info.IsReview(), info.CarriesToken())
		}
	}
}

func TestAcceptedFormsAreInTheClientsOrder(t *testing.T) {
	const table = "application/json;as=Table;v=v1;g=meta.k8s.io"
	const partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
	object, metadata := Form{wire.JSON, Object}, Form{wire.JSON, Metadata}
	tests := []struct {
		name, accept string
		want         []Form
	}{
		{"without a header everything is accepted", "", []Form{object}},
		{"client-go for custom resources", "application/json, */*", []Form{object}},
		{"client-go for built-in resources", "application/vnd.kubernetes.protobuf,application/json", []Form{{wire.Protobuf, Object}, object}},
		{"kubectl prefers tables and accepts objects", table + ",application/json", []Form{object}},
		{"only a table", table, nil},
		{"the metadata client", "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1," + partial + ",application/json", []Form{{wire.Protobuf, Metadata}, metadata}},
		{"an unknown format", "application/cbor", nil},
		{"weights count", "application/json;q=0.5,application/vnd.kubernetes.protobuf," + partial, []Form{{wire.Protobuf, Object}, metadata}},
		{"objects before metadata", "application/json," + partial, []Form{object, metadata}},
		{"weight 0 means not acceptable", "application/json;q=0", nil},
		{"an invalid clause is ignored", ";;;,application/json", []Form{object}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			info := Info{Accept: ParseAccept(tt.accept)}
			if d := cmp.Diff(tt.want, info.Forms(), cmp.Comparer(func(a, b wire.Format) bool { return a == b })); d != "" {
				t.Fatal(d)
			}
		})
	}
	info := Info{Accept: ParseAccept("application/vnd.kubernetes.protobuf, " + partial + ", */*")}
	for form, want := range map[Form]string{metadata: partial, object: "application/json", {wire.Protobuf, Object}: "application/vnd.kubernetes.protobuf"} {
		if got := info.AcceptForm(form); got != want {
			t.Errorf("%+v: got %q, want %q", form, got, want)
		}
	}
}

func TestImpersonationIsRecognised(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/api/v1/pods", nil)
	r.Header.Set("Impersonate-Extra-Scopes", "x")
	if info := Parse(r); !info.Impersonated {
		t.Fatal("not recognised")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("GET", "/api/v1/namespaces/a/pods/b/log", "watch=1&labelSelector=a", "application/json;as=Table")
	f.Add("DELETE", "/apis/a/b/c", "limit=-1", "*/*;q=0.1")
	f.Add("GET", "/api/v1/watch/", "", "")
	f.Add("GET", "/apis/g/v1/watch/namespaces/n/things/x,y", "fieldSelector=metadata.name%3Dx&watch=0", "")
	f.Add("GET", "/api/v1/watch/watch/watch", "shardSelector=x;limit=5&limit=6", "application/json")
	f.Fuzz(func(t *testing.T, method, path, query, accept string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Method, r.URL.Path, r.URL.RawQuery = method, path, query
		r.Header.Set("Accept", accept)
		info := Parse(r)
		if info.IsResource && info.IsDocument() {
			t.Fatal("both a resource and a document")
		}
		for _, form := range info.Forms() {
			info.AcceptForm(form)
		}
		if info.Class != ClassWatch {
			return
		}
		// The list that the sidecar makes of a watch must be of the same objects.
		r.URL.Path = info.Path
		r.URL.RawQuery = url.Values{"labelSelector": {info.LabelSelector}, "fieldSelector": {info.FieldSelector}}.Encode()
		list := Parse(r)
		if list.Class != ClassList || list.Group != info.Group || list.Version != info.Version || list.Resource != info.Resource ||
			list.Namespace != info.Namespace || list.LabelSelector != info.LabelSelector || list.FieldSelector != info.FieldSelector {
			t.Fatalf("a watch of %+v is listed by %+v", info, list)
		}
	})
}

func TestAFormNamesItselfInListsAndWatches(t *testing.T) {
	for form, want := range map[Form][2]string{
		{wire.JSON, Object}: {"application/json", "application/json"},
		{wire.Protobuf, Metadata}: {
			"application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
			"application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
		},
	} {
		if got := [2]string{form.AcceptList(), form.AcceptWatch()}; got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
}
