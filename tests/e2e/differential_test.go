package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestOfflineAnswersEqualOnlineAnswers sends random requests online and again offline, together
// with others that a recorded collection covers.
func TestOfflineAnswersEqualOnlineAnswers(t *testing.T) {
	s := newSite(t)
	random := randomOf(t)
	s.customResources()
	s.allowEverywhere(rbacv1.PolicyRule{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"get", "list", "watch"}})
	f := s.dataset(random)
	p := s.pod(withoutApp)
	f.base = p.version()

	asks := f.wide()
	for len(asks) < 180 {
		asks = append(asks, f.draw())
	}
	d := &differential{t: t, answered: map[string]int{}, versions: map[string][]string{}}
	online := p.answers(asks, p.send)
	for i, a := range asks {
		d.learn(a, online[i])
	}
	var fresh []ask
	for len(fresh) < 120 {
		if a := f.draw(); !slices.ContainsFunc(asks, func(b ask) bool { return a.getRequest == b.getRequest }) {
			fresh = append(fresh, a)
		}
	}
	direct := p.answers(fresh, p.sendDirectly)

	p.offline()
	offline := func(p *testPod, phase string) {
		d.t = p.site.t
		for i, got := range p.answers(asks, p.send) {
			d.check(phase+", asked before", asks[i], online[i], got, d.recorded(asks[i], online[i]))
		}
		for i, got := range p.answers(fresh, p.send) {
			d.check(phase+", not asked before", fresh[i], direct[i], got, d.covered(fresh[i]))
		}
	}
	t.Run("offline", func(t *testing.T) { offline(p.in(t), "offline") })
	t.Run("offline, pages after the first have expired", func(t *testing.T) { expired(t, p.in(t), asks, online) })
	p.restart("rockpool-sidecar")
	t.Run("offline after a restart", func(t *testing.T) { offline(p.in(t), "after a restart") })
	d.t = t
	d.count()
}

// version is the present resourceVersion.
func (p *testPod) version() string {
	p.site.t.Helper()
	list, err := p.site.cluster.Client().CoreV1().ConfigMaps(p.site.namespace).List(p.site.ctx, metav1.ListOptions{})
	if err != nil {
		p.site.t.Fatal(err)
	}
	return list.ResourceVersion
}

// wide are lists over all namespaces, for half of the kinds. They cover all other requests for
// these kinds.
func (f *dataset) wide() (all []ask) {
	for i, k := range f.kinds {
		if i%2 == 0 {
			all = append(all, ask{verb: "list", kind: k, variant: pick(f.random, variants[:6]...)}.built())
		}
	}
	return all
}

// differential compares answers and counts them.
type differential struct {
	t        *testing.T
	lists    []recordedList
	versions map[string][]string // of lists and watches that were answered online, by resource
	answered map[string]int
}

// learn notes that an online answer is recorded.
func (d *differential) learn(a ask, o outcome) {
	d.t.Helper()
	if o.problem != "" {
		d.t.Errorf("online %v: %s", a, o.problem)
	}
	if o.Status != http.StatusOK || a.verb == "get" {
		return
	}
	d.versions[a.kind.String()] = append(append(d.versions[a.kind.String()], o.version), o.bookmarks...)
	if a.verb == "watch" && (!a.initial || !o.ended) || a.match == "Exact" || o.kind == "Table" {
		return
	}
	d.lists = append(d.lists, recordedList{a.kind, a.namespace, canonicalLabels(a.labels), canonicalFields(a.fields), formOf(o), o.version})
}

// check compares an offline answer with the expected one. must says that there has to be an answer.
func (d *differential) check(phase string, a ask, want, got outcome, must bool) {
	d.t.Helper()
	must = must && (want.Status == http.StatusOK || want.Status == http.StatusNotFound)
	d.answered[fmt.Sprintf("%s: %s %d", phase, a.verb, got.Status)]++
	if want.Status != got.Status || must {
		d.answered[fmt.Sprintf("%s: must %v, %d in place of %d", phase, must, got.Status, want.Status)]++
	}
	fail := func(format string, args ...any) { d.t.Errorf("%s: %v: %s", phase, a, fmt.Sprintf(format, args...)) }
	switch {
	case got.problem != "":
		fail("%s", got.problem)
	case want.problem != "":
		// learn has reported it.
	case must && want.Status != got.Status:
		fail("status %d, want %d, since it is recorded: %s", got.Status, want.Status, got.text())
	case got.Status == http.StatusServiceUnavailable && bytes.Contains(got.Body, []byte("not recorded")):
	case got.Status == http.StatusGone && a.match == "Exact":
	case got.Status == http.StatusGatewayTimeout && a.version != "" && a.version != "0":
	case want.Status == http.StatusNotAcceptable && got.Status == http.StatusNotFound: // an absent object has no encoding
	case a.verb == "watch" && want.Status != http.StatusOK && !a.needsState() && len(got.objects) == 0:
		// It waits for events. It gets the server's refusal when the link is back.
	case want.Status != got.Status:
		fail("status %d, want %d: %s", got.Status, want.Status, got.text())
	case got.Status == http.StatusOK:
		d.compare(fail, a, want, got)
	}
}

// compare compares two answers with status 200.
func (d *differential) compare(fail func(string, ...any), a ask, want, got outcome) {
	if a.initial && (want.ended != got.ended) {
		fail("the initial events have ended: %v, want %v", got.ended, want.ended)
	}
	if a.verb == "list" || a.initial {
		seen := d.versions[a.kind.String()]
		if !isAsNewAsOneOf(seen, got.version) {
			fail("resourceVersion %q, want one as new as from online: %v", got.version, seen)
		}
		if newest(a.version, got.version) != got.version {
			fail("resourceVersion %s is older than the requested one", got.version)
		}
	}
	if diff := want.reordered(got.decoded); diff != "" {
		fail("%s", diff)
	}
	if diff := want.difference(got.decoded); diff != "" {
		// Objects in another form have only the same identities.
		if formOf(want) != formOf(got) || want.kind == "Table" || got.kind == "Table" {
			if w, g := want.identities(), got.identities(); maps.Equal(w, g) {
				return
			}
		}
		fail("%s", diff)
	}
}

// count logs the counts, and fails the test if too few answers have status 200.
func (d *differential) count() {
	ok, all := map[string]int{}, map[string]int{}
	for _, key := range slices.Sorted(maps.Keys(d.answered)) {
		d.t.Logf("%4d  %s", d.answered[key], key)
		phase, rest, _ := strings.Cut(key, ": ")
		if strings.HasPrefix(rest, "must") {
			continue
		}
		all[phase] += d.answered[key]
		if strings.HasSuffix(rest, " 200") {
			ok[phase] += d.answered[key]
		}
	}
	for phase, n := range all {
		if ok[phase]*4 < n {
			d.t.Errorf("%s: only %d of %d requests get status 200, too few for this test", phase, ok[phase], n)
		}
	}
}

// expired requests offline the second pages of lists whose first page came online.
func expired(t *testing.T, p *testPod, asks []ask, online []outcome) {
	var following []getRequest
	for i, a := range asks {
		if online[i].next != "" {
			following = append(following, a.page(online[i].next))
		}
	}
	if len(following) == 0 {
		t.Fatal("no list has a second page, so this test shows nothing")
	}
	for i, f := range p.send(following) {
		if f.Status != http.StatusGone || !bytes.Contains(f.Body, []byte(`Expired`)) {
			t.Errorf("%s as %s: %d %s", following[i].Target, following[i].Accept, f.Status, f.text())
		}
	}
}
