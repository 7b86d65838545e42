package dispatch

import (
	"net/http"
	"os"
	"strings"
	"testing"
)

// What the API server has answered last counts, whichever way a program asked.
func TestTheLatestAnswerCountsOffline(t *testing.T) {
	const (
		apis      = "/apis/route.openshift.io/v1"
		routes    = apis + "/namespaces/shop/routes"
		forbidden = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`
		noAPI     = "404 page not found\n"
		missing   = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","details":{"name":"b","kind":"configmaps"},"code":404}`
		exists    = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"AlreadyExists","details":{"name":"b","kind":"configmaps"},"code":409}`
		success   = `{"kind":"Status","apiVersion":"v1","status":"Success"}`
		b20       = `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"b","namespace":"shop","uid":"v","resourceVersion":"20"}}`
		a20       = `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"20"}}`
		scale     = `{"kind":"Scale","apiVersion":"autoscaling/v1","metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"20"}}`
		cbor      = "application/cbor"
	)
	later := strings.Replace(list, `"resourceVersion":"10"`, `"resourceVersion":"30"`, 1)
	items := func(raw string) string {
		return `{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"10"},"items":` + raw + `}`
	}
	type request struct {
		method, url string
		code        int
		answer      string
		mediaType   string // empty: JSON
	}
	type want map[string]int
	for name, tt := range map[string]struct {
		requests []request
		offline  want
	}{
		"an optional API that is not served": {
			[]request{{"GET", apis, 404, noAPI, "text/plain"}, {"GET", routes, 404, noAPI, "text/plain"}, {"GET", "/openapi/v3/apis/x", 404, noAPI, "text/plain"}},
			want{apis: 404, routes: 404, "/openapi/v3/apis/x": 404, routes + "/r": 503, "/apis/other.io/v1": 503},
		},
		"an optional API that is served again": {
			[]request{{"GET", apis, 404, noAPI, "text/plain"}, {"GET", routes, 404, noAPI, "text/plain"}, {"GET", apis, 200, `{"kind":"APIResourceList"}`, ""}},
			want{apis: 200, routes: 503},
		},
		"a resource that is not served any more": {
			[]request{{"GET", path, 200, list, ""}, {"GET", path, 404, noAPI, "text/plain"}},
			want{path: 404, path + "/a": 503, path + "?watch=true": 503},
		},
		"a list that is forbidden now": {
			[]request{{"GET", path, 200, list, ""}, {"GET", path, 403, forbidden, ""}}, want{path: 503, path + "?watch=true": 503},
		},
		"a watch that is forbidden now": {
			[]request{{"GET", path, 200, list, ""}, {"GET", watchFrom10, 403, forbidden, ""}}, want{path: 503},
		},
		"a list that is allowed again": {
			[]request{{"GET", path, 200, list, ""}, {"GET", path, 403, forbidden, ""}, {"GET", path, 200, later, ""}}, want{path: 200, path + "/b": 404},
		},
		"a write, then a 404 of a lagging cache": {
			[]request{{"GET", path, 200, list, ""}, {"POST", path, 201, b20, ""}, {"GET", path + "/b?resourceVersion=0", 404, missing, ""}}, want{path + "/b": 503},
		},
		"a write, then other objects are deleted": {
			[]request{{"GET", path, 200, list, ""}, {"POST", path, 201, b20, ""}, {"DELETE", path + "?labelSelector=x", 200, list, ""}}, want{path + "/b": 503, path + "/a": 503, path: 503},
		},
		"a write, then one that is answered in CBOR": {
			[]request{{"GET", path, 200, list, ""}, {"POST", path, 201, b20, ""}, {"PATCH", path + "/b", 200, "\xd9\xd9\xf7", cbor}}, want{path + "/b": 503, path + "/a": 200},
		},
		"a write, then its object is forbidden": {
			[]request{{"GET", path, 200, list, ""}, {"POST", path, 201, b20, ""}, {"GET", path + "/b", 403, forbidden, ""}}, want{path + "/b": 503},
		},
		"an object that exists already": {
			[]request{{"GET", path, 200, list, ""}, {"POST", path, 409, exists, ""}}, want{path + "/b": 503, path + "/a": 200, path: 503},
		},
		"an object that was there, was deleted, and is forbidden now": {
			[]request{{"GET", path, 200, list, ""}, {"GET", path + "/b", 404, missing, ""}, {"GET", path + "/b", 403, forbidden, ""}}, want{path + "/b": 503},
		},
		"a write of the scale": {
			[]request{{"GET", path + "/a", 200, strings.Replace(a20, "20", "5", 1), ""}, {"PUT", path + "/a/scale", 200, scale, ""}}, want{path + "/a": 503},
		},
		"a write of the scale, then the object": {
			[]request{{"GET", path, 200, list, ""}, {"PUT", path + "/a/scale", 200, scale, ""}, {"GET", path + "/a", 200, a20, ""}}, want{path + "/a": 200},
		},
		"a write of the status": {
			[]request{{"GET", path, 200, list, ""}, {"PUT", path + "/a/status", 200, a20, ""}}, want{path + "/a": 200, path: 503},
		},
		"an eviction": {
			[]request{{"GET", path, 200, list, ""}, {"POST", path + "/a/eviction", 201, success, ""}}, want{path + "/a": 503},
		},
		"an object that exists, says a write that is only tried": {
			[]request{{"GET", path, 200, list, ""}, {"POST", path + "?dryRun=All", 409, exists, ""}}, want{path + "/b": 503, path: 503},
		},
		"a list that cannot be read": {
			[]request{{"GET", path, 200, list, ""}, {"GET", path, 200, items(`[null]`), ""}}, want{path: 503, path + "/a": 503, path + "/b": 503},
		},
		"a list whose items are a text": {
			[]request{{"GET", path, 200, items(`"x"`), ""}}, want{path + "/a": 503},
		},
		"a list whose items are an object": {
			[]request{{"GET", path, 200, items(`{"a":{}}`), ""}}, want{path + "/a": 503},
		},
		"a list without items": {
			[]request{{"GET", path, 200, items(`null`), ""}}, want{path: 200, path + "/a": 404},
		},
		"a list whose items do not tell their namespace": {
			[]request{{"GET", path, 200, items(`[{"metadata":{"name":"a","uid":"u","resourceVersion":"5"}}]`), ""}}, want{path + "/a": 503},
		},
		"a list with a label that is a number": {
			[]request{{"GET", path, 200, items(`[{"metadata":{"name":"a","namespace":"shop","labels":{"x":1},"uid":"u","resourceVersion":"5"}}]`), ""}},
			want{path: 503, path + "?labelSelector=x": 503},
		},
		"a list of a name and another field": {
			[]request{{"GET", path + "?fieldSelector=metadata.name%3Da,metadata.name%3Db", 200, items(`[]`), ""}}, want{path + "/a": 503, path + "/b": 503},
		},
		"a label of a namespace that is being deleted": {
			[]request{{"PATCH", "/api/v1/namespaces/shop", 200, `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"shop","uid":"n","resourceVersion":"9",
				"deletionTimestamp":"2026-01-01T00:00:00Z"},"spec":{"finalizers":["kubernetes"]}}`, ""}},
			want{"/api/v1/namespaces/shop": 200},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newHarness(t)
			for _, q := range tt.requests {
				g.link.SetAnswer(func(*http.Request) (*http.Response, error) {
					resp := textResponse(q.code, q.answer)
					if q.mediaType != "" {
						resp.Header.Set("Content-Type", q.mediaType)
					}
					return resp, nil
				})
				if code, body := g.do(g.request(q.method, q.url)); code != q.code || body != q.answer {
					t.Fatalf("%s %s: %d %s", q.method, q.url, code, body)
				}
			}
			g.link.Cut()
			for url, want := range tt.offline {
				if code, body := g.do(g.request("GET", url)); code != want {
					t.Errorf("%s: %d %s, want %d", url, code, body, want)
				}
			}
		})
	}
}

func TestADamagedPayloadCostsItsCollectionAlone(t *testing.T) {
	const payload = "something-to-find"
	g := newHarness(t)
	g.answerAll(200, strings.Replace(list, `"uid"`, `"annotations":{"x":"`+payload+`"},"uid"`, 1))
	g.do(g.request("GET", path))
	g.answerAll(200, `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"10"},"items":[]}`)
	g.do(g.request("GET", "/api/v1/pods"))
	g.flush()
	for _, file := range []string{g.db.Path(), g.db.Path() + "-wal"} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if damaged := strings.ReplaceAll(string(raw), payload, strings.ToUpper(payload)); damaged != string(raw) {
			patch(t, file, string(raw), damaged)
		}
	}
	g.link.Cut()
	if code, body := g.do(g.request("GET", path+"/a")); code != 503 {
		t.Fatalf("a damaged object: %d %s", code, body)
	}
	g.flush()
	if code, body := g.do(g.request("GET", "/api/v1/pods")); code != 200 {
		t.Errorf("another list: %d %s", code, body)
	}
	select {
	case s := <-g.Caches.Disk.Stale():
		if s.Source.Info.Path != path || s.Source.Principal != "web" {
			t.Errorf("stale: %+v", s)
		}
	default:
		t.Error("the collection is not listed again")
	}
	if all, err := g.db.Collections(t.Context(), "web", "", "v1", "configmaps"); err != nil || len(all) != 0 {
		t.Errorf("the damaged collection is still there: %+v %v", all, err)
	}
}

// patch overwrites the bytes of a file that differ, in place: SQLite has it open.
func patch(t *testing.T, file, from, to string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range len(from) {
		if from[i] != to[i] {
			if _, err := f.WriteAt([]byte{to[i]}, int64(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
}
