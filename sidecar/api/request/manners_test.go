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

func TestYAMLIsAskedForAsJSON(t *testing.T) {
	for _, tt := range []struct {
		name, url, accept, want string
		ok                      bool
	}{
		{"objects", "/api/v1/pods", "application/yaml", "application/json", true},
		{"metadata", "/api/v1/pods", "application/yaml;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", true},
		{"no YAML", "/api/v1/pods", "application/cbor", "", false},
		{"anything", "/api/v1/pods", "", "", false},
		{"a watch", "/api/v1/pods?watch=true", "application/yaml", "", false},
	} {
		r := httptest.NewRequest("GET", tt.url, nil)
		r.Header.Set("Accept", tt.accept)
		before := Parse(r)
		if info, ok := before.YAMLAsJSON(); ok != tt.ok || ok && (info.RawAccept != tt.want || len(info.Forms()) != 1) {
			t.Errorf("%s: %+v %v", tt.name, info.Accept, ok)
		}
	}
}
