package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// documents are requests for discovery and OpenAPI documents, in the forms that clients accept.
func documents(t *testing.T, p *testPod) []question {
	t.Helper()
	accept := func(target, accept string) question {
		return with("GET", target, map[string]string{"Accept": accept})
	}
	root := p.ask(get("/openapi/v3"))[0]
	var index struct {
		Paths map[string]struct{ ServerRelativeURL string }
	}
	if err := json.Unmarshal([]byte(root.Body), &index); err != nil || !strings.Contains(index.Paths["api/v1"].ServerRelativeURL, "hash=") {
		t.Fatalf("/openapi/v3: %v %.300s", err, root.Body)
	}
	const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
	return []question{
		get("/version"), get("/api"), get("/apis"), get("/api/v1"), get("/apis/apps/v1"), accept("/openid/v1/jwks", "*/*"),
		accept("/api", aggregated), accept("/apis", aggregated),
		get("/openapi/v2"), accept("/openapi/v2", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"),
		get("/openapi/v3"), get(index.Paths["api/v1"].ServerRelativeURL), get(index.Paths["apis/apps/v1"].ServerRelativeURL),
	}
}

const unchanged = `rockpool_revalidations_total{result="unchanged"}`

func TestDocumentsAreFetchedOnceAndAnsweredOffline(t *testing.T) {
	s := newSite(t)
	p := s.pod()
	p.sees("synced")
	questions := documents(t, p)
	first := p.ask(questions...)
	withETag := 0
	for i, r := range first {
		if r.Status != http.StatusOK || r.Body == "" {
			t.Fatalf("%s: %d %.300s", questions[i].Target, r.Status, r.Body)
		}
		if r.Headers["Etag"] != "" {
			withETag++
		}
		t.Logf("%s (%s): %d bytes, etag %.12s", questions[i].Target, questions[i].Headers["Accept"], len(r.Body), r.Headers["Etag"])
	}
	if withETag < 6 {
		t.Fatalf("only %d documents have an ETag, too few for this test", withETag)
	}
	s.until("all documents are recorded", func() bool { return s.sql("SELECT count(*) FROM response") == strconv.Itoa(len(questions)) })

	bytes, revalidated := s.Link.Stats().BytesDown, p.metric(unchanged)
	second := p.ask(questions...)
	spared := s.Link.Stats().BytesDown - bytes
	// On a busy machine the cache is sometimes slower than the time that a request waits for it.
	if got := p.metric(unchanged) - revalidated; got < withETag/2 || got > withETag {
		t.Errorf("%d documents were revalidated, want %d", got, withETag)
	}
	size := 0
	for i, r := range second {
		same(t, questions[i], first[i], r)
		size += len(r.Body)
		if r.Headers["Cache-Status"] != "" || r.Headers["Age"] != "" {
			t.Errorf("%s: an answer of the server has the header of the cache: %v", questions[i].Target, r.Headers)
		}
	}
	t.Logf("%d bytes of documents cost %d bytes on the link the second time", size, spared)
	if int(spared) > size/10 {
		t.Errorf("%d bytes of documents cost %d bytes on the link the second time", size, spared)
	}
	if r := p.ask(with("GET", "/openapi/v2", map[string]string{"If-None-Match": first[8].Headers["Etag"]}))[0]; r.Status != http.StatusNotModified || r.Body != "" {
		t.Errorf("for a client that has the document: %d, %d bytes", r.Status, len(r.Body))
	}

	p.offline()
	p.restart("rockpool-sidecar")
	for i, r := range p.ask(questions...) {
		same(t, questions[i], first[i], r)
		if r.Headers["Cache-Status"] == "" || r.Headers["Age"] == "" {
			t.Errorf("%s offline has no header of the cache: %v", questions[i].Target, r.Headers)
		}
	}
	for _, target := range []string{"/healthz", "/livez", "/readyz", "/api/v1/nodes/x/proxy/metrics", "/openapi/v3/apis/apps/v1?hash=OTHER"} {
		if r := p.ask(get(target))[0]; r.Status != http.StatusServiceUnavailable {
			t.Errorf("%s offline: %d", target, r.Status)
		}
	}
}

// same compares an answer with the server's, headers included.
func same(t *testing.T, q question, want, got reply) {
	t.Helper()
	if got.Status != want.Status || got.Body != want.Body {
		t.Errorf("%s: %d with %d bytes, want %d with %d bytes", q.Target, got.Status, len(got.Body), want.Status, len(want.Body))
	}
	for _, name := range []string{"Content-Type", "Etag", "Vary", "Cache-Control", "Last-Modified"} {
		if name == "Last-Modified" && want.Headers["Etag"] == "" {
			continue // the server generates the index of OpenAPI v3 for each request
		}
		if got.Headers[name] != want.Headers[name] {
			t.Errorf("%s: %s is %q, want %q", q.Target, name, got.Headers[name], want.Headers[name])
		}
	}
}

func TestKubectlDiscoveryIsCheapOnAThinLinkAndWorksOffline(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p := s.pod()
	p.sees("synced")
	// Each run has its own empty cache directory, as in a new container.
	run := func(n int) (out string) {
		cache := fmt.Sprintf("--cache-dir=/tmp/%d", n)
		return p.kubectl("api-resources", cache, "-o", "name") + p.kubectl("explain", cache, "deployment.spec.template") + p.kubectl("explain", cache, "pod.spec")
	}
	cost := func(n int) (string, int64) {
		before := s.Link.Stats().BytesDown
		out := run(n)
		return out, s.Link.Stats().BytesDown - before
	}
	out, first := cost(1)
	if !strings.Contains(out, "deployments.apps") || !strings.Contains(out, "PodTemplateSpec") {
		t.Fatal(out)
	}
	again, second := cost(2)
	t.Logf("the first run costs %d bytes on the link, the second %d", first, second)
	if again != out || second > first/2 || p.metric(unchanged) == 0 {
		t.Errorf("the second run costs %d bytes on the link, the first %d; %d documents were unchanged", second, first, p.metric(unchanged))
	}
	p.offline()
	p.restart("rockpool-sidecar")
	if got := run(3); got != out {
		t.Errorf("offline:\n%s\nonline:\n%s", got, out)
	}
}

// review is the body of a TokenReview or a SelfSubjectAccessReview.
func review(group, kind, spec string) string {
	return fmt.Sprintf(`{"apiVersion":"%s/v1","kind":%q,"spec":%s}`, group, kind, spec)
}

func TestReviewsAreAnsweredOfflineForAWhile(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: s.namespace},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:auth-delegator"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "default", Namespace: s.namespace}},
	}
	if _, err := cluster.Client().RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p := s.pod(withDebugLog)
	p.sees("synced")
	guest := s.requestToken("default")
	post := func(target, body string) question {
		q := with("POST", target, map[string]string{"Content-Type": "application/json"})
		q.Body = body
		return q
	}
	const tokens, access = "/apis/authentication.k8s.io/v1/tokenreviews", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
	asked := []question{
		post(tokens, review("authentication.k8s.io", "TokenReview", `{"token":"`+guest+`"}`)),
		post(access, review("authorization.k8s.io", "SelfSubjectAccessReview", `{"resourceAttributes":{"verb":"delete","resource":"planted-resources","name":"planted-name"}}`)),
	}
	online := p.ask(asked...)
	for i, r := range online {
		if r.Status != http.StatusCreated {
			t.Fatalf("%s: %+v", asked[i].Target, r)
		}
	}
	if !strings.Contains(online[0].Body, `"authenticated":true`) || !strings.Contains(online[0].Body, guest) {
		t.Fatalf("the server's answer does not have the token, so this test shows little: %s", online[0].Body)
	}
	can := p.run("/kubectl", "auth", "can-i", "list", "configmaps")
	cannot := p.run("/kubectl", "auth", "can-i", "delete", "secrets")
	if can.Stdout != "yes\n" || cannot.Stdout != "no\n" {
		t.Fatalf("online: %+v %+v", can, cannot)
	}

	p.offline()
	for i, r := range p.ask(asked...) {
		if r.Status != http.StatusCreated || r.Body != online[i].Body || r.Headers["Cache-Status"] == "" || r.Headers["Age"] == "" {
			t.Errorf("%s offline: %+v, want %s", asked[i].Target, r, online[i].Body)
		}
	}
	if got := p.run("/kubectl", "auth", "can-i", "list", "configmaps"); got.Stdout != can.Stdout {
		t.Errorf("an allowed action: %+v", got)
	}
	if got := p.run("/kubectl", "auth", "can-i", "delete", "secrets"); got.Stdout != cannot.Stdout {
		t.Errorf("a denied action: %+v", got)
	}
	if got := p.run("/kubectl", "auth", "can-i", "create", "configmaps"); got.ExitCode == 0 || strings.Contains(got.Stdout, "yes") || !strings.Contains(got.Stderr, "not recorded") {
		t.Errorf("an action that was never reviewed: %+v", got)
	}
	other := post(tokens, review("authentication.k8s.io", "TokenReview", `{"token":"`+guest+`x"}`))
	if r := p.ask(other)[0]; r.Status != http.StatusServiceUnavailable {
		t.Errorf("another token: %+v", r)
	}
	disk, said := s.disk(), mustLogs(t, p, "rockpool-sidecar")
	if !bytes.Contains(disk, []byte("selfsubjectaccessreviews")) {
		t.Error("no review is on the disk, so this test shows little")
	}
	for _, private := range []string{guest, "planted-name", "planted-resources"} {
		if bytes.Contains(disk, []byte(private)) || strings.Contains(said, private) {
			t.Errorf("%.20s… is on the disk or in the sidecar's log", private)
		}
	}
}

func TestAnObjectThatThePodHasSeenDeletedIsNotFoundOffline(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.allow(core("services", "limitranges"))
	p := s.pod() // it watches ConfigMaps, but none of these resources
	p.sees("synced")
	core := "/api/v1/namespaces/" + s.namespace
	services, limits := core+"/services", core+"/limitranges"
	send := func(method, target, body string) reply {
		t.Helper()
		q := with(method, target, map[string]string{"Content-Type": "application/json"})
		if method == "PATCH" {
			q.Headers["Content-Type"] = "application/merge-patch+json"
		}
		q.Body = body
		r := p.ask(q)[0]
		if r.Status >= 300 {
			t.Fatalf("%s %s: %+v", method, target, r)
		}
		return r
	}
	service := func(name, finalizers string) string {
		return fmt.Sprintf(`{"metadata":{"name":%q,"finalizers":[%s]},"spec":{"ports":[{"port":80}]}}`, name, finalizers)
	}
	limit := func(name string) string { return fmt.Sprintf(`{"metadata":{"name":%q},"spec":{"limits":[]}}`, name) }
	for _, name := range []string{"deleted", "tried", "again", "patched"} {
		send("POST", services, service(name, ""))
		send("POST", limits, limit(name))
	}
	send("POST", services, service("held", `"example.com/hold"`))
	if r := p.ask(get(services), get(limits)); r[0].Status != 200 || r[1].Status != 200 {
		t.Fatalf("lists: %+v", r)
	}
	s.until("the lists are recorded", func() bool {
		return s.sql("SELECT count(*) FROM v_collection WHERE state = 'complete' AND (resource = 'v1/services' OR resource = 'v1/limitranges')") == "2"
	})
	// The answer to the DELETE of a Service is the object, to that of a LimitRange only a Status.
	for _, target := range []string{services, limits} {
		send("DELETE", target+"/deleted", "")
		send("DELETE", target+"/tried", `{"apiVersion":"v1","kind":"DeleteOptions","dryRun":["All"]}`)
		send("DELETE", target+"/again", "")
		send("PATCH", target+"/patched", `{"metadata":{"labels":{"by":"me"}}}`)
	}
	send("POST", services, service("again", ""))
	send("POST", limits, limit("again"))
	send("DELETE", services+"/held", "")
	for _, target := range []string{services + "/nope", core + "/endpoints/unseen"} {
		if r := p.ask(get(target))[0]; r.Status != http.StatusNotFound && r.Status != http.StatusForbidden {
			t.Fatalf("%s: %+v", target, r)
		}
	}
	if r := p.ask(get(core + "/events/never"))[0]; r.Status != http.StatusNotFound {
		t.Fatalf("an object of a resource that was never listed: %+v", r)
	}

	p.offline()
	p.restart("rockpool-sidecar")
	want := func(target string, status int, text string) {
		t.Helper()
		r := p.ask(get(target))[0]
		if r.Status != status || !strings.Contains(r.Body, text) {
			t.Errorf("%s: %d %s, want %d with %q", target, r.Status, r.Body, status, text)
		}
		if status == http.StatusNotFound && r.status(t).Reason != metav1.StatusReasonNotFound {
			t.Errorf("%s: %s", target, r.Body)
		}
	}
	for _, target := range []string{services, limits} {
		want(target+"/deleted", 404, "")
		want(target+"/tried", 200, `"tried"`)
		want(target+"/again", 200, `"again"`)
		want(target+"/patched", 200, `"by":"me"`)
		// The list is older than the writes, unless it was read again in the background.
		if r := p.ask(get(target))[0]; r.Status != http.StatusServiceUnavailable && (r.Status != http.StatusOK || strings.Contains(r.Body, `"deleted"`)) {
			t.Errorf("%s: %d %s", target, r.Status, r.Body)
		}
	}
	want(services+"/held", 200, "deletionTimestamp")
	want(core+"/events/never", 404, "")
	want(core+"/events/other", 503, "not recorded")
	want(core+"/endpoints/unseen", 503, "not recorded")
}
