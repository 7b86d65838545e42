package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// fromCache reports whether a list was answered from the cache.
func fromCache(r reply) bool { return r.Headers["Cache-Status"] != "" }

// saved lists until a list comes from the cache, which must be the API server's present state.
// Before that the answers are the API server's own.
func (p *testPod) saved() reply {
	p.site.t.Helper()
	var r reply
	p.site.until("a list comes from the cache", func() bool {
		r = p.ask(get(p.site.configMaps()))[0]
		p.isPresent(r)
		return fromCache(r)
	})
	return r
}

// during is the API server's state at the resourceVersion of a list, of objects that changed one after
// the other from one state to another.
func during(t *testing.T, before, after map[string]string, r reply) map[string]string {
	t.Helper()
	var list metav1.PartialObjectMetadataList
	if err := json.Unmarshal([]byte(r.Body), &list); err != nil {
		t.Fatal(err)
	}
	number := func(version string) uint64 {
		n, err := strconv.ParseUint(version, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	state := maps.Clone(before)
	for name, now := range after {
		if _, version, _ := strings.Cut(now, "/"); number(version) <= number(list.ResourceVersion) {
			state[name] = now
		}
	}
	return state
}

// A link that breaks or goes silent during a proof, at whatever moment of it, costs the read its
// saving, not its truth: it gets the present state, or the answer of a sidecar that is offline.
func TestALinkThatBreaksDuringAProof(t *testing.T) {
	t.Parallel()
	// ask.py gives up after 30 s. A proof waits 6 s at most, and the link is known to be down
	// sooner.
	const bound = 20.0
	s := thinSite(t, 300)
	p := s.pod(withoutApp)
	p.linkIs("online")
	p.isPresent(p.ask(get(s.configMaps()))[0])
	p.saved()
	proofs := 0
	for name, breaks := range map[string]func(){"cut": s.Link.Cut, "black hole": s.Link.BlackHole, "reset": s.Link.Reset} {
		for _, at := range []time.Duration{50, 200, 450, 900, 1500} {
			t.Run(fmt.Sprintf("%s after %d ms", name, at), func(t *testing.T) {
				p := p.in(t)
				before := p.site.present()
				s.many(0, 3)
				after := p.site.present()
				broken := make(chan struct{})
				time.AfterFunc(at*time.Millisecond, func() { defer close(broken); breaks() })
				r := p.ask(get(s.configMaps()))[0]
				<-broken
				s.Link.Restore()
				got := versions(t, r)
				t.Logf("%.1f s, Cache-Status %q", r.Seconds, r.Headers["Cache-Status"])
				switch {
				case r.Seconds > bound:
					t.Errorf("the answer took %.1f s", r.Seconds)
				case r.Headers["Audit-Id"] != "": // the API server has answered, or proven it
					if fromCache(r) {
						proofs++
					}
					if diff := cmp.Diff(after, got); diff != "" {
						t.Errorf("an answer while the link is up (-API server +answer):\n%s", diff)
					}
				default: // the watch may have brought some of the changes
					if diff := cmp.Diff(during(t, before, after, r), got); diff != "" {
						t.Errorf("the offline answer is no state of the API server (-at its version +answer):\n%s", diff)
					}
				}
				p.online()
				p.saved()
			})
		}
	}
	t.Logf("%d lists were proven all the same", proofs)
}

// Selectors and pages ask for something else than the collection that is live.
func TestOtherQueriesBesideALiveCollection(t *testing.T) {
	t.Parallel()
	s := thinSite(t, 300)
	p := s.pod(withoutApp)
	p.linkIs("online")
	p.isPresent(p.ask(get(s.configMaps()))[0])
	p.saved()
	names := func(names ...string) func(map[string]string) map[string]string {
		return func(all map[string]string) map[string]string {
			some := map[string]string{}
			for _, name := range names {
				if version, ok := all[name]; ok {
					some[name] = version
				}
			}
			return some
		}
	}
	all := func(all map[string]string) map[string]string { return all }
	for name, c := range map[string]struct {
		query string
		want  func(map[string]string) map[string]string
	}{
		"a label selector":                 {"labelSelector=app%3Dmany-0001", names("many-0001")},
		"a label selector of several":      {"labelSelector=app+in+(many-0001,many-0200)", names("many-0001", "many-0200")},
		"a field selector":                 {"fieldSelector=metadata.name%3Dmany-0001", names("many-0001")},
		"a field selector of what is gone": {"fieldSelector=metadata.name%3Dgone", names()},
		"a selector of any version":        {"labelSelector=app%3Dmany-0250&resourceVersion=0", names("many-0250")},
		"a page that has all":              {"limit=1000", all},
		"pages":                            {"limit=70", all},
		"pages of selected objects":        {"limit=1&labelSelector=app+in+(many-0001,many-0200)", names("many-0001", "many-0200")},
		"a limit of any version":           {"limit=10&resourceVersion=0", all},
		"any version":                      {"resourceVersion=0", all},
		"not older than a version":         {"resourceVersion=1&resourceVersionMatch=NotOlderThan", all},
	} {
		t.Run(name, func(t *testing.T) {
			p := p.in(t)
			s.many(0, 2) // many-0001 is another one than recorded
			got, next := map[string]string{}, ""
			for {
				target := s.configMaps() + "?" + c.query
				if next != "" {
					target += "&continue=" + url.QueryEscape(next)
				}
				r := p.ask(get(target))[0]
				maps.Copy(got, versions(t, r))
				if next = continues(t, r); next == "" {
					break
				}
			}
			present := c.want(p.site.present())
			if strings.Contains(c.query, "resourceVersion=") { // may be of a moment ago
				if len(got) != len(present) {
					t.Errorf("it has %d objects, want %d", len(got), len(present))
				}
			} else if diff := cmp.Diff(present, got); diff != "" {
				t.Errorf("(-API server +answer):\n%s", diff)
			}
			p.saved() // the collection is live, before and after
		})
	}
}

// continues is the continue token of a list.
func continues(t *testing.T, r reply) string {
	t.Helper()
	var list metav1.PartialObjectMetadataList
	if err := json.Unmarshal([]byte(r.Body), &list); err != nil {
		t.Fatal(err)
	}
	return list.Continue
}

// A program that lists after a write finds it, its own and others', however short the time between.
func TestASavedListHasEveryWriteBefore(t *testing.T) {
	t.Parallel()
	s := thinSite(t, 300)
	p := s.pod(withoutApp)
	p.linkIs("online")
	p.isPresent(p.ask(get(s.configMaps()))[0])
	p.saved()
	hits := 0
	write := func(method, name, value string) question {
		body, _ := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name}, "data": map[string]string{"value": value}})
		q := with(method, s.configMaps(), map[string]string{"Content-Type": "application/json"})
		if method != http.MethodPost {
			q.Target += "/" + name
		}
		if method != http.MethodDelete {
			q.Body = string(body)
		}
		return q
	}
	lists := []question{get(s.configMaps()), get(s.configMaps() + "?limit=5000")}
	for i := range 6 {
		name := "own-" + strconv.Itoa(i)
		for j, w := range []question{write(http.MethodPost, name, "new"), write(http.MethodPut, name, "changed"), write(http.MethodDelete, name, "")} {
			what := fmt.Sprintf("%s %s", w.Method, name)
			replies := p.ask(w, lists[(i+j)%2])
			if replies[0].Status >= 300 {
				t.Fatalf("%s: %d %s", what, replies[0].Status, replies[0].Body)
			}
			p.isPresent(replies[1])
			if fromCache(replies[1]) {
				hits++
			}
			// Another client's write has ended before the list begins.
			s.many(i, i+1)
			r := p.ask(lists[(i+j)%2])[0]
			p.isPresent(r)
			if fromCache(r) {
				hits++
			}
			if t.Failed() {
				t.Fatalf("after %s: Cache-Status %q", what, r.Headers["Cache-Status"])
			}
		}
	}
	if hits < 18 {
		t.Errorf("only %d of 36 lists came from the cache, too few for this test", hits)
	}
}

// A custom resource that is no longer served, and a right that was taken away, end a live
// collection.
func TestALiveCollectionOfWhatIsNoLongerServed(t *testing.T) {
	t.Parallel()
	s := thinSite(t, 0) // where it is worth it
	gadgets := s.gadgets(300)
	p := s.pod(withoutApp)
	p.linkIs("online")
	path := "/apis/" + gadgets.GroupVersion().String() + "/namespaces/" + s.namespace + "/" + gadgets.Resource
	questions := []question{get(path), get(path + "?resourceVersion=0"),
		get(path + "?watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1")}
	s.until("lists come from the cache", func() bool {
		return fromCache(p.ask(questions[0])[0]) && fromCache(p.ask(questions[1])[0])
	})
	refused := func(what string, status int, direct func() bool) {
		t.Helper()
		s.until(what, direct)
		for _, q := range questions {
			if r := p.ask(q)[0]; r.Status != status || fromCache(r) {
				t.Errorf("%s: %s: %d %v %.300s", what, q.Target, r.Status, r.Headers, r.Body)
			}
		}
	}
	token := p.token()
	status := func() int { code, _ := s.direct(questions[0], token); return code }
	role, err := s.cluster.Client().RbacV1().Roles(s.namespace).Get(s.ctx, "app", metav1.GetOptions{})
	s.must(err)
	allowed := role.DeepCopy()
	role.Rules = nil
	role, err = s.cluster.Client().RbacV1().Roles(s.namespace).Update(s.ctx, role, metav1.UpdateOptions{})
	s.must(err)
	refused("the right is taken away", http.StatusForbidden, func() bool { return status() == http.StatusForbidden })

	allowed.ResourceVersion = role.ResourceVersion
	_, err = s.cluster.Client().RbacV1().Roles(s.namespace).Update(s.ctx, allowed, metav1.UpdateOptions{})
	s.must(err)
	s.until("the right is back", func() bool { return status() == http.StatusOK })
	if r := p.ask(questions[0])[0]; r.Status != http.StatusOK {
		t.Errorf("with the right: %d %.300s", r.Status, r.Body)
	}
	s.until("lists come from the cache", func() bool {
		return fromCache(p.ask(questions[0])[0]) && fromCache(p.ask(questions[1])[0])
	})

	s.must(dynamicClient(t).Resource(definitions).Delete(s.ctx, gadgets.GroupResource().String(), metav1.DeleteOptions{}))
	refused("the resource is not served", http.StatusNotFound, func() bool { return status() == http.StatusNotFound })
}

// gadgets installs a custom resource that only this test has, with objects in its namespace.
func (s *site) gadgets(count int) (r schema.GroupVersionResource) {
	s.t.Helper()
	r = schema.GroupVersionResource{Group: "gadgets.example.com", Version: "v1", Resource: "gadgets"}
	definition := customResource(r.GroupResource(), "Gadget", "Namespaced", r.Version)
	client := dynamicClient(s.t)
	if _, err := client.Resource(definitions).Create(s.ctx, definition, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		s.t.Fatal(err)
	}
	api := client.Resource(r).Namespace(s.namespace)
	s.until("gadgets are served", func() bool { _, err := api.List(s.ctx, metav1.ListOptions{}); return err == nil })
	for i := range count {
		o := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": r.GroupVersion().String(), "kind": "Gadget",
			"metadata": map[string]any{"name": fmt.Sprintf("gadget-%04d", i)}, "data": map[string]any{"value": noise(1500)},
		}}
		_, err := api.Create(s.ctx, o, metav1.CreateOptions{})
		s.must(err)
	}
	s.allow(rbacv1.PolicyRule{APIGroups: []string{r.Group}, Resources: []string{r.Resource}, Verbs: []string{"get", "list", "watch"}})
	return r
}
