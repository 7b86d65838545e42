package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"rockpool.dev/tests/bed/link"
)

// TestSavedAnswersEqualOnlineAnswers sends random requests, changes what they show, and sends them
// again over a thin link, to a sidecar that has restarted and answers from its cache what saves the
// link.
func TestSavedAnswersEqualOnlineAnswers(t *testing.T) {
	s := newSite(t)
	random := randomOf(t)
	s.customResources()
	s.allowEverywhere(rbacv1.PolicyRule{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"get", "list", "watch"}})
	f := s.dataset(random)
	// A proof must be faster than a list.
	f.annotate(s, func(int) bool { return true }, noise(64<<10))
	p := s.pod(withoutApp)
	p.linkIs("online")
	f.base = p.version()
	asks := f.wide()
	for len(asks) < 30 {
		if a := f.draw(); (a.verb == "list" || a.initial) && a.limit == 0 && a.match != "Exact" && !a.variant.table { // which pass
			asks = append(asks, a)
		}
	}
	p.answers(asks, p.send)
	p.restart("rockpool-sidecar")                                   // which has found the link fast
	f.annotate(s, func(n int) bool { return n%40 == 0 }, "changed") // each of these costs the link 64 KiB
	direct := p.answers(asks, p.sendDirectly)

	shape := link.Shape{Rate: 1_000_000 / 8, Queue: 64 << 10, RoundTrip: 50 * time.Millisecond}
	s.Link.SetShape(shape, shape)
	counts := map[string]int{}
	patiently := func(requests []getRequest) []getResponse { return p.runAsker(requests, "-timeout=2m", "-parallel=2") }
	for i, got := range p.answers(asks, patiently) {
		a, want, who := asks[i], direct[i], "the API server"
		if got.cached() {
			who = "the cache"
		}
		counts[fmt.Sprintf("%s %d by %s", a.verb, got.Status, who)]++
		fail := func(format string, args ...any) {
			t.Errorf("%v, answered by %s: %s", a, who, fmt.Sprintf(format, args...))
		}
		switch {
		case a.verb == "watch" && !got.cached() && !got.ended: // its two seconds may be over in the middle of an event
		case got.problem != "" || got.Status != want.Status:
			fail("status %d %s, want %d: %s", got.Status, got.problem, want.Status, got.text())
		case got.Status != http.StatusOK:
		case a.verb == "watch" && !got.ended:
			fail("the initial events have not ended")
		default:
			if diff := want.difference(got.decoded); diff != "" {
				fail("%s", diff)
			} else if diff := want.reordered(got.decoded); diff != "" {
				fail("%s", diff)
			}
			if got.cached() && newest(want.version, got.version) != got.version {
				fail("resourceVersion %s; before, it was %s", got.version, want.version)
			}
		}
	}
	all, err := p.metrics()
	s.must(err)
	for name, n := range all {
		if strings.HasPrefix(name, "rockpool_saved_reads_total") {
			t.Logf("%4d  %s", n, name)
		}
	}
	for what, n := range counts {
		t.Logf("%4d  %s", n, what)
	}
	// The answer to a watch does not say that its initial state is from the cache.
	if all[`rockpool_saved_reads_total{result="proven"}`]+all[`rockpool_saved_reads_total{result="checked"}`] == 0 {
		t.Error("no answer came from the cache, so this test shows nothing")
	}
}

// annotate annotates those of the dataset's objects that are chosen.
func (f *dataset) annotate(s *site, chosen func(n int) bool, text string) {
	s.t.Helper()
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"example.com/pad-%d":%q}}}`, len(text), text)
	n := 0
	for _, k := range f.kinds {
		for _, key := range slices.Sorted(slices.Values(f.names[k.Resource])) {
			namespace, name, _ := strings.Cut(key, "/")
			if n++; !chosen(n) || namespace == "" && !strings.HasPrefix(name, "edge-") {
				continue
			}
			_, err := dynamicClient(s.t).Resource(k.GroupVersionResource).Namespace(namespace).Patch(s.ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
			s.must(err)
		}
	}
}
