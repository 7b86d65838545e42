package request

import (
	"net/http/httptest"
	"testing"
)

func TestJSONIsIndentedForPeople(t *testing.T) {
	for _, tt := range []struct {
		name, url, agent, accept string
		want                     bool
	}{
		{"a program", "/api/v1/pods", "kubectl/v1", "", false},
		{"curl", "/api/v1/pods", "curl/8.14.1", "", true},
		{"Wget", "/api/v1/pods", "Wget/1.25", "", true},
		{"a browser", "/api/v1/pods", "Mozilla/5.0 (X11)", "text/html,*/*;q=0.8", true},
		{"a program with curl in its name", "/api/v1/pods", "my-curl/1", "", false},
		{"who asks for it", "/api/v1/pods?pretty=true", "kubectl/v1", "", true},
		{"who asks for it by a number", "/api/v1/pods?pretty=1", "", "", true},
		{"curl that does not want it", "/api/v1/pods?pretty=false", "curl/8", "", false},
		{"curl with a word that is no boolean", "/api/v1/pods?pretty=yes", "curl/8", "", false},
		{"curl with an empty value", "/api/v1/pods?pretty=", "curl/8", "", true},
		{"who asks for it in the Accept header", "/api/v1/pods", "", "application/json;pretty=1", true},
	} {
		r := httptest.NewRequest("GET", tt.url, nil)
		r.Header.Set("User-Agent", tt.agent)
		if tt.accept != "" {
			r.Header.Set("Accept", tt.accept)
		}
		if info := Parse(r); info.Pretty != tt.want {
			t.Errorf("%s: %v", tt.name, info.Pretty)
		}
	}
}

func TestYAMLAndCBORAreAskedForAsJSON(t *testing.T) {
	for _, tt := range []struct {
		name, url, accept, want, mediaType string
	}{
		{"objects", "/api/v1/pods", "application/yaml", "application/json", "application/yaml"},
		{"objects in CBOR", "/api/v1/pods", "application/cbor;q=0.9", "application/json;q=0.9", "application/cbor"},
		{"metadata", "/api/v1/pods", "application/yaml;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", "application/yaml"},
		{"the better one", "/api/v1/pods", "application/yaml;q=0.5,text/plain,application/cbor", "application/json", "application/cbor"},
		{"neither", "/api/v1/pods", "application/json", "", ""},
		{"anything", "/api/v1/pods", "", "", ""},
		{"a watch", "/api/v1/pods?watch=true", "application/yaml", "", ""},
	} {
		r := httptest.NewRequest("GET", tt.url, nil)
		r.Header.Set("Accept", tt.accept)
		before := Parse(r)
		if info, mediaType, ok := before.InJSON(); ok != (tt.want != "") || mediaType != tt.mediaType || ok && (info.RawAccept != tt.want || len(info.Forms()) != 1) {
			t.Errorf("%s: %+v %s %v", tt.name, info.Accept, mediaType, ok)
		}
	}
}

func TestCBORIsLeftOutWhereTheClientAcceptsMore(t *testing.T) {
	for _, tt := range []struct{ name, method, url, accept, want string }{
		{"client-go's dynamic client", "GET", "/api/v1/pods", "application/json;q=0.9,application/cbor;q=1", "application/json;q=0.9"},
		{"its watch", "GET", "/api/v1/pods?watch=true", "application/json;q=0.9,application/cbor;q=1", "application/json;q=0.9"},
		{"its write", "POST", "/api/v1/namespaces/a/configmaps", "application/json;q=0.9,application/cbor;q=1", "application/json;q=0.9"},
		{"client-go's typed client", "GET", "/api/v1/namespaces/a/pods/b", "application/cbor, */*", "*/*"},
		{"a sequence", "GET", "/api/v1/pods?watch=true", "application/cbor-seq,application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf"},
		{"CBOR alone", "GET", "/api/v1/pods", "application/cbor", ""},
		{"CBOR or YAML", "GET", "/api/v1/pods", "application/cbor,application/yaml", ""},
		{"no CBOR", "GET", "/api/v1/pods", "application/json, application/yaml", ""},
		{"a Table", "GET", "/api/v1/pods", "application/cbor;as=Table;g=meta.k8s.io;v=v1,application/json;as=Table;g=meta.k8s.io;v=v1", ""},
		{"a document", "GET", "/apis", "application/cbor,application/json", ""},
		{"a log", "GET", "/api/v1/namespaces/a/pods/b/log", "application/cbor,*/*", ""},
	} {
		r := httptest.NewRequest(tt.method, tt.url, nil)
		r.Header.Set("Accept", tt.accept)
		info := Parse(r)
		if got, ok := info.WithoutCBOR(); got != tt.want || ok != (tt.want != "") {
			t.Errorf("%s: %q %v", tt.name, got, ok)
		}
	}
}

func TestPathsThatMayBeLists(t *testing.T) {
	for url, want := range map[string]bool{
		"/api/v1/pods":                               true,
		"/api/v1/pods/":                              true,
		"/api/v1/namespaces/shop/pods":               true,
		"/api/v1/namespaces":                         true,
		"/apis/apps/v1/deployments?limit=500":        true,
		"/apis/apps/v1/namespaces/shop/daemonsets":   true,
		"/api/v1/namespaces/shop":                    false,
		"/api/v1/namespaces/shop/pods/a":             false,
		"/apis/apps/v1/namespaces/shop/daemonsets/a": false,
		"/api/v1/pods?watch=true":                    false,
		"/api/v1":                                    false,
		"/apis/apps/v1":                              false,
		"/openapi/v3/apis/apps":                      false,
		"/version":                                   false,
	} {
		r := httptest.NewRequest("GET", url, nil)
		if got := MayList(r); got != want {
			t.Errorf("%s: %v", url, got)
		}
		if info := Parse(r); info.Class == ClassList && !want {
			t.Errorf("%s is a list", url)
		}
	}
}
