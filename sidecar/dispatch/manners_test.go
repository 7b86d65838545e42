package dispatch

import (
	"net/http"
	"strings"
	"testing"
)

func TestOfflineManners(t *testing.T) {
	const widgets = "/apis/example.com/v1/namespaces/shop/widgets"
	const odd = "/apis/odd.example.com/v1/namespaces/shop/widgets" // whose versions are no numbers
	const invalid = `resourceVersion: Invalid value: "abc": strconv.ParseUint: parsing "abc": invalid syntax`
	g := newHarness(t)
	g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
		switch r.URL.Path {
		case widgets:
			return textResponse(200, `{"kind":"WidgetList","apiVersion":"example.com/v1","metadata":{"resourceVersion":"10"},"items":[]}`), nil
		case odd:
			return textResponse(200, `{"kind":"WidgetList","apiVersion":"odd.example.com/v1","metadata":{"resourceVersion":"v7"},"items":[]}`), nil
		case "/version":
			return textResponse(200, `{"major":"1","minor":"36"}`), nil
		}
		return textResponse(200, list), nil
	})
	for _, url := range []string{path, widgets, odd, "/version"} {
		g.do(g.request("GET", url))
	}
	g.flush()
	g.link.Cut()
	for _, tt := range []struct {
		name, method, url string
		header            map[string]string
		code              int
		want              string // in the body or message
	}{
		{"a HEAD of a built-in object", "HEAD", path + "/a", nil, 405, "does not allow this method"},
		{"a HEAD of a built-in list", "HEAD", path, nil, 405, "does not allow this method"},
		{"a HEAD of a custom resource", "HEAD", widgets, nil, 200, ""},
		{"a path with two slashes", "GET", "//api/v1/namespaces/shop/configmaps", nil, 503, "an empty or a dot segment"},
		{"a path with a dot segment", "GET", path + "/./a", nil, 503, "an empty or a dot segment"},
		{"a document by an unclean path", "GET", "//version", nil, 503, "an empty or a dot segment"},
		{"a watch at a version that is no number", "GET", path + "?watch=true&resourceVersion=abc", nil, 500, invalid},
		{"a watch with initial events at such a version", "GET", path + "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=abc", nil, 500, invalid},
		{"a list at such a version", "GET", path + "?resourceVersion=abc", nil, 400, "invalid resource version: " + invalid},
		{"a GET at such a version", "GET", path + "/a?resourceVersion=abc", nil, 500, invalid},
		{"a list of a custom resource at such a version", "GET", widgets + "?resourceVersion=abc", nil, 400, "invalid resource version: " + invalid},
		{"a list with a match, but no version", "GET", path + "?resourceVersionMatch=Exact", nil, 422, "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"},
		{"a list at exactly any version", "GET", path + "?resourceVersionMatch=Exact&resourceVersion=0", nil, 422, `resourceVersionMatch "exact" is forbidden for resourceVersion "0"`},
		{"a list with a match that does not exist", "GET", widgets + "?resourceVersionMatch=Newest&resourceVersion=9", nil, 422, `Unsupported value: "Newest"`},
		{"a list with initial events", "GET", path + "?sendInitialEvents=false", nil, 422, "sendInitialEvents is forbidden for list"},
		{"a page with a match", "GET", path + "?resourceVersionMatch=Exact&resourceVersion=9&continue=x", nil, 422, "forbidden when continue is provided"},
		{"a watch with initial events, but no match", "GET", path + "?watch=true&sendInitialEvents=true", nil, 422, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"},
		{"a watch that is to match exactly", "GET", path + "?watch=true&sendInitialEvents=true&resourceVersionMatch=Exact&resourceVersion=9", nil, 422, `Unsupported value: "Exact"`},
		{"a watch with a match, but no initial events", "GET", widgets + "?watch=true&resourceVersionMatch=NotOlderThan&resourceVersion=9", nil, 422, "forbidden for watch unless sendInitialEvents is provided"},
		{"a list of a resource whose versions are no numbers", "GET", odd + "?resourceVersion=v7", nil, 200, `"v7"`},
		{"an object for a program", "GET", path + "/a", nil, 200, `"metadata":{"name":"a"`},
		{"an object for curl", "GET", path + "/a", map[string]string{"User-Agent": "curl/8"}, 200, "  \"metadata\": {\n    \"name\": \"a\""},
		{"a list for curl", "GET", path, map[string]string{"User-Agent": "curl/8"}, 200, "  \"items\": [\n    {\n      \"metadata\": {\n        \"name\": \"a\""},
		{"a document for curl", "GET", "/version", map[string]string{"User-Agent": "curl/8"}, 200, "{\n  \"major\": \"1\""},
		{"an object in YAML", "GET", path + "/a", map[string]string{"Accept": "application/yaml"}, 200, "metadata:\n  name: a\n"},
		{"metadata in YAML", "GET", path + "/a", map[string]string{"Accept": "application/yaml;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}, 200, "kind: PartialObjectMetadata\n"},
		{"a list in YAML", "GET", path, map[string]string{"Accept": "application/yaml"}, 200, "kind: ConfigMapList\n"},
		{"an object in CBOR", "GET", path + "/a", map[string]string{"Accept": "application/cbor"}, 200, "\xd9\xd9\xf7\xa3\x44kind\x49ConfigMap"},
		{"a list in CBOR", "GET", path, map[string]string{"Accept": "application/cbor"}, 200, "\x4dConfigMapList"},
		{"JSON where it is accepted, too", "GET", path, map[string]string{"Accept": "application/json;q=0.9,application/cbor;q=1"}, 200, `"kind":"ConfigMapList"`},
		{"an absent object in YAML", "GET", path + "/b", map[string]string{"Accept": "application/yaml"}, 404, `configmaps "b" not found`},
		{"a list that is not recorded, in YAML", "GET", "/api/v1/pods", map[string]string{"Accept": "application/yaml"}, 503, "not recorded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := g.request(tt.method, tt.url)
			for name, value := range tt.header {
				r.Header.Set(name, value)
			}
			if code, body := g.do(r); code != tt.code || !strings.Contains(body, tt.want) {
				t.Errorf("%d %s", code, body)
			}
		})
	}
	r := g.request("GET", odd+"?watch=true&resourceVersion=v7")
	if resp, err := g.RoundTrip(r); err != nil || resp.StatusCode != 200 {
		t.Errorf("a watch of a resource whose versions are no numbers: %v", err)
	} else if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
}

func TestALargeAnswerIsNotConverted(t *testing.T) {
	g := newHarness(t)
	g.answerAll(200, strings.Replace(list, `"name":"a"`, `"name":"a","annotations":{"a":"`+strings.Repeat("x", maxEncoded)+`"}`, 1))
	g.do(g.request("GET", path))
	g.flush()
	g.link.Cut()
	for _, name := range []string{"YAML", "CBOR"} {
		r := g.request("GET", path)
		r.Header.Set("Accept", "application/"+strings.ToLower(name))
		if code, body := g.do(r); code != 503 || !strings.Contains(body, "too large to be converted to "+name) {
			t.Errorf("%d %.200s", code, body)
		}
	}
}

func TestAHEADIsNotRecorded(t *testing.T) {
	g := newHarness(t)
	g.answerAll(200, list)
	g.do(g.request("GET", path))
	g.answerAll(200, "")
	g.do(g.request("HEAD", path))
	g.do(g.request("HEAD", path+"/a"))
	g.flush()
	g.link.Cut()
	if code, body := g.do(g.request("GET", path+"/a")); code != 200 {
		t.Errorf("%d %s", code, body)
	}
}

// The answer of an API server with CBOR turned on cannot be cut into objects. A client that accepts
// JSON as well, as client-go does, gets that, so that its objects are recorded.
func TestAClientThatPrefersCBORIsAskedForJSON(t *testing.T) {
	g := newHarness(t)
	g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
		resp := textResponse(200, list)
		resp.Header.Set("Content-Type", "application/json")
		if strings.Contains(r.Header.Get("Accept"), "cbor") {
			resp = textResponse(200, "\xd9\xd9\xf7\xa0")
			resp.Header.Set("Content-Type", "application/cbor")
		}
		return resp, nil
	})
	r := g.request("GET", path)
	const accept = "application/json;q=0.9,application/cbor;q=1"
	r.Header.Set("Accept", accept)
	if code, body := g.do(r); code != 200 || body != list {
		t.Errorf("online: %d %s", code, body)
	}
	if r.Header.Get("Accept") != accept {
		t.Error("the client's request is changed")
	}
	g.flush()
	g.link.Cut()
	r = g.request("GET", path+"/a")
	r.Header.Set("Accept", accept)
	if code, body := g.do(r); code != 200 || !strings.HasPrefix(body, "{") {
		t.Errorf("offline: %d %s", code, body)
	}
}
