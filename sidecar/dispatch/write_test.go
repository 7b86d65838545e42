package dispatch

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/upstream"
	"rockpool.dev/sidecar/write"
	"rockpool.dev/sidecar/write/outbox"
)

func TestAGetReturnsThePodsLastWriteOffline(t *testing.T) {
	const object = `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"12"},"data":{"by":"me"}}`
	g := newHarness(t)
	g.answerAll(200, list)
	g.do(g.request("GET", path))
	write := func(method, url string, code int, body string) {
		t.Helper()
		g.link.Restore()
		g.answerAll(code, body)
		if got, answer := g.do(g.request(method, url)); got != code || answer != body {
			t.Fatalf("%s: %d %s", method, got, answer)
		}
		g.link.Cut()
	}
	write("PATCH", path+"/a", 200, object)
	if code, body := g.do(g.request("GET", path+"/a")); code != 200 || body != object {
		t.Errorf("after a patch: %d %s", code, body)
	}
	write("PATCH", path+"/a?dryRun=All", 200, strings.Replace(object, "12", "13", 1))
	if code, body := g.do(g.request("GET", path+"/a")); code != 200 || body != object {
		t.Errorf("after a dry-run patch: %d %s", code, body)
	}
	write("POST", path, 201, strings.Replace(object, `"a"`, `"new"`, 1))
	if code, _ := g.do(g.request("GET", path+"/new")); code != 200 {
		t.Errorf("after a create: %d", code)
	}
	write("DELETE", path+"/new", 200, `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","details":{"name":"new","kind":"configmaps","uid":"u"}}`)
	if code, _ := g.do(g.request("GET", path+"/new")); code != 404 {
		t.Errorf("after a delete: %d", code)
	}
	write("PATCH", path+"/a", 409, `{"kind":"Status","apiVersion":"v1","code":409}`)
	if code, body := g.do(g.request("GET", path+"/a")); code != 200 || body != object {
		t.Errorf("after a conflict: %d %s", code, body)
	}
}

func TestAnInterruptedWriteGets504OnceItWasSent(t *testing.T) {
	g := newHarness(t)
	g.failAll(&upstream.LinkError{Sent: true})
	if code, message := g.do(g.request("POST", path)); code != 504 || !strings.Contains(message, "may have been carried out") {
		t.Errorf("%d %s", code, message)
	}
	g.failAll(&upstream.LinkError{})
	if code, message := g.do(g.request("POST", path)); code != 503 || !strings.Contains(message, "nothing is written") {
		t.Errorf("%d %s", code, message)
	}
}

func TestAWriteWhoseAnswerBreaksOffGets504(t *testing.T) {
	g := newHarness(t)
	const object = `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"12"}}`
	broken := func(body string) {
		g.link.SetAnswer(func(*http.Request) (*http.Response, error) {
			resp := textResponse(201, body)
			resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(body), iotest.ErrReader(&upstream.LinkError{Sent: true})))
			return resp, nil
		})
	}
	for name, body := range map[string]string{"before its body": "", "in its body": object[:40]} {
		broken(body)
		if code, message := g.do(g.request("POST", path)); code != 504 || !strings.Contains(message, "may have been carried out") {
			t.Errorf("%s: %d %s", name, code, message)
		}
	}
	g.answerAll(201, object)
	if code, body := g.do(g.request("POST", path)); code != 201 || body != object {
		t.Errorf("a whole answer: %d %s", code, body)
	}
	large := strings.Replace(object, `"metadata"`, `"data":{"text":"`+strings.Repeat("x", 2*maxWhole)+`"},"metadata"`, 1)
	g.answerAll(201, large)
	if code, body := g.do(g.request("POST", path)); code != 201 || body != large {
		t.Errorf("a large answer: %d with %d bytes", code, len(body))
	}
}

func TestADeletedObjectIsNotFoundOffline(t *testing.T) {
	const object = `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"12"}}`
	const success = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","details":{"name":"a","kind":"configmaps","uid":"u"}}`
	const missing = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","reason":"NotFound","details":{"name":"a","kind":"configmaps"},"code":404}`
	held := strings.Replace(object, `"uid"`, `"deletionTimestamp":"2026-01-01T00:00:00Z","finalizers":["x"],"uid"`, 1)
	for _, tt := range []struct {
		name, method, after, sent string
		code                      int
		answer                    string
		offline                   int
	}{
		{"a delete", "DELETE", "", "", 200, success, 404},
		{"a delete with options", "DELETE", "", `{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Background"}`, 200, success, 404},
		{"a delete that returns the object", "DELETE", "", "", 200, object, 404},
		{"a delete that is accepted and waits for a finalizer", "DELETE", "", "", 202, held, 200},
		{"a delete that waits for a finalizer", "DELETE", "", "", 200, held, 200},
		{"a dry-run delete by the query", "DELETE", "?dryRun=All", "", 200, success, 200},
		{"a dry-run delete by the JSON body", "DELETE", "", `{"kind":"DeleteOptions","apiVersion":"v1","dryRun":["All"]}`, 200, success, 200},
		{"a dry-run delete by the protobuf body", "DELETE", "", inProtobuf(t, &metav1.DeleteOptions{DryRun: []string{"All"}}), 200, success, 200},
		{"a delete with too large a body to be checked for dry run", "DELETE", "", strings.Repeat(" ", maxBody+1), 200, success, 503},
		{"a dry-run delete by the JSON body, with escapes", "DELETE", "", `{"dryRun":["\u0041ll"]}`, 200, success, 200},
		{"a dry-run delete by a body in YAML", "DELETE", "", `dryRun: ["\x41ll"]`, 200, success, 503},
		{"a dry-run delete by a body in CBOR", "DELETE", "", inCBOR(t, map[string]any{"dryRun": []string{"All"}}), 200, success, 503},
		{"a delete by a body in YAML", "DELETE", "", "propagationPolicy: Background\n", 200, success, 404},
		{"a delete by the protobuf body", "DELETE", "", inProtobuf(t, &metav1.DeleteOptions{GracePeriodSeconds: new(int64)}), 200, success, 404},
		{"a delete whose options have the word elsewhere", "DELETE", "", `{"preconditions":{"uid":"All"}}`, 200, success, 404},
		{"a delete whose options name dryRun otherwise", "DELETE", "", `{"DryRun":["All"]}`, 200, success, 404},
		{"a delete by a body beside a query that says dry run", "DELETE", "?dryRun=All", "{}", 200, success, 503},
		{"a delete that is accepted, with a Status", "DELETE", "", "", 202, success, 503},
		{"a delete without an answer in the body", "DELETE", "", "", 200, "", 503},
		{"a delete without content", "DELETE", "", "", 204, "", 503},
		{"a PUT without an answer in the body", "PUT", "", "{}", 200, "", 503},
		{"a PUT without content", "PUT", "", "{}", 204, "", 503},
		{"a PUT with another success", "PUT", "", "{}", 203, object, 503},
		{"a PUT whose answer cannot be read", "PUT", "", "{}", 200, object[:len(object)/2], 503},
		{"a scale without content", "PUT", "/scale", "{}", 204, "", 503},
		{"a write of a subresource that nobody here knows", "POST", "/rollback", "{}", 201, success, 503},
		{"an upload to such a subresource", "PUT", "/start", "{}", 202, "", 503},
		{"a token", "POST", "/token", "{}", 201, `{"kind":"TokenRequest"}`, 200},
		{"a command in a container", "POST", "/exec", "", 400, `{"kind":"Status"}`, 200},
		{"a delete through a proxy", "DELETE", "/proxy/x", "", 200, "done", 200},
		{"a GET of a missing object without a body", "GET", "", "", 404, "", 503},
		{"a dry-run patch of a missing object", "PATCH", "?dryRun=All", "{}", 404, missing, 404},
		{"a dry-run patch", "PATCH", "?dryRun=All", "{}", 200, object, 200},
		{"a delete of a missing object", "DELETE", "", "", 404, missing, 404},
		{"a patch of a missing object", "PATCH", "", "{}", 404, missing, 404},
		{"a patch that removes the last finalizer", "PATCH", "", "{}", 200, strings.Replace(held, `,"finalizers":["x"]`, "", 1), 404},
		{"a patch that keeps a finalizer", "PATCH", "", "{}", 200, held, 200},
		{"a delete that is forbidden", "DELETE", "", "", 403, `{"kind":"Status"}`, 200},
		{"a delete that conflicts", "DELETE", "", "", 409, `{"kind":"Status"}`, 200},
		{"a GET of a missing object", "GET", "", "", 404, missing, 404},
		{"a GET of a resource that the API server does not serve", "GET", "", "", 404, "404 page not found", 503},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newHarness(t)
			g.answerAll(200, list)
			g.do(g.request("GET", path))
			g.flush()
			var got string
			g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
				raw, err := io.ReadAll(r.Body)
				got = string(raw)
				return textResponse(tt.code, tt.answer), errors.Join(err, r.Body.Close())
			})
			r := g.request(tt.method, path+"/a"+tt.after)
			r.Body = io.NopCloser(strings.NewReader(tt.sent))
			if code, body := g.do(r); code != tt.code || body != tt.answer || got != tt.sent {
				t.Fatalf("online: %d %s, upstream got %.100q", code, body, got)
			}
			g.link.Cut()
			if code, body := g.do(g.request("GET", path+"/a")); code != tt.offline || (tt.answer == held && body != held) {
				t.Errorf("offline: %d %s", code, body)
			}
			want := 200
			if tt.offline != 200 || tt.answer == held {
				want = 503 // the client has been told something newer
			}
			if code, body := g.do(g.request("GET", path)); code != want || want == 200 && !strings.Contains(body, `"a"`) {
				t.Errorf("the list: %d %s", code, body)
			}
			if tt.offline != 404 {
				return
			}
			g.link.Restore()
			g.answerAll(201, strings.Replace(object, `"u"`, `"u2"`, 1))
			g.do(g.request("POST", path))
			g.link.Cut()
			if code, body := g.do(g.request("GET", path+"/a")); code != 200 || !strings.Contains(body, "u2") {
				t.Errorf("created again: %d %s", code, body)
			}
		})
	}
}

func TestAnUnreadableAnswerToAWriteInvalidatesTheObject(t *testing.T) {
	const object = `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"12"}}`
	g := newHarness(t)
	g.answerAll(200, object)
	g.do(g.request("GET", path+"/a"))
	g.link.SetAnswer(func(*http.Request) (*http.Response, error) {
		resp := textResponse(200, "...")
		resp.Header.Set("Content-Type", "application/cbor")
		return resp, nil
	})
	g.do(g.request("PATCH", path+"/a"))
	g.link.Cut()
	if code, body := g.do(g.request("GET", path+"/a")); code != 503 {
		t.Errorf("%d %s", code, body)
	}
}

func TestOnlyWritesWithoutAnOfflineAnswerWaitForTheLink(t *testing.T) {
	const patience = 2 * time.Second
	for _, tt := range []struct {
		name, method, url string
		want              time.Duration
	}{
		{"a PUT", "PUT", path + "/a", patience},
		{"a POST", "POST", path, patience},
		{"a DELETE", "DELETE", path + "/a", patience},
		{"a request for a token", "POST", "/api/v1/namespaces/shop/serviceaccounts/web/token", patience},
		{"a GET", "GET", path + "/a", 0},
		{"a review", "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", 0},
		{"an Event that is queued", "POST", "/api/v1/namespaces/shop/events", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newHarness(t)
			o := g.Options
			o.WritePatience, o.ReviewLifetime, o.Acceptors = patience, time.Minute, []write.Acceptor{outbox.New(outbox.Options{MaxCount: 1})}
			g.restart(o)
			g.answerAll(200, "{}")
			g.do(g.request(tt.method, tt.url))
			if got := g.link.Patience(); got != tt.want {
				t.Errorf("it may wait for %s, not %s", got, tt.want)
			}
			g.link.Cut()
			sent := len(g.link.Requests())
			if g.do(g.request(tt.method, tt.url)); len(g.link.Requests()) != sent {
				t.Error("it was sent offline")
			}
		})
	}
}

// The answer to a POST may be a stream that comes from another server: its first bytes must not
// wait for the others.
func TestAStreamThatAnswersAWriteIsNotHeldBack(t *testing.T) {
	for _, url := range []string{
		"/api/v1/namespaces/shop/services/web/proxy", "/api/v1/namespaces/shop/services/web/proxy/events", "/api/v1/namespaces/shop/pods/web:80/proxy/a/b",
		"/api/v1/nodes/edge-1/proxy/run/x", "/api/v1/proxy/namespaces/shop/services/web/events",
		"/api/v1/namespaces/shop/pods/web/exec?command=ls", "/apis/build.example.com/v1/namespaces/shop/builds/web/clone",
	} {
		t.Run(url, func(t *testing.T) {
			g := newHarness(t)
			up := newStream()
			g.answerInTurn(up)
			resp, err := g.RoundTrip(g.post(url, "{}")) // it would wait for ever
			if err != nil {
				t.Fatal(err)
			}
			go up.send(t, "first")
			first := make([]byte, len("first"))
			if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "first" {
				t.Errorf("%q, %v", first, err)
			}
			if err := errors.Join(up.w.Close(), resp.Body.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// inProtobuf is an object as the body of a request.
func inProtobuf(t *testing.T, o interface{ Marshal() ([]byte, error) }) string {
	t.Helper()
	raw, err := o.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(wire.Protobuf.AppendTyped(nil, "DeleteOptions", "v1", raw))
}

func inCBOR(t *testing.T, o any) string {
	t.Helper()
	raw, err := direct.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// Whoever deletes many objects is told that they are gone, or will be, by any success.
func TestNothingFromBeforeCountsAfterADeletionOfMany(t *testing.T) {
	for name, tt := range map[string]struct {
		body    string
		code    int
		answer  string
		offline int
	}{
		"with a list":           {"", 200, list, 503},
		"accepted":              {"", 202, `{"kind":"Status","status":"Success"}`, 503},
		"without content":       {"", 204, "", 503},
		"only tried":            {`{"dryRun":["All"]}`, 200, list, 200},
		"refused":               {"", 403, `{"kind":"Status"}`, 200},
		"tried, in another way": {"dryRun: [All]\n", 200, list, 503},
	} {
		t.Run(name, func(t *testing.T) {
			g := newHarness(t)
			g.answerAll(200, list)
			g.do(g.request("GET", path))
			g.answerAll(tt.code, tt.answer)
			g.do(g.write("DELETE", path, tt.body))
			g.flush()
			g.link.Cut()
			for _, url := range []string{path, path + "/a"} {
				if code, body := g.do(g.request("GET", url)); code != tt.offline {
					t.Errorf("%s: %d %s", url, code, body)
				}
			}
		})
	}
}
