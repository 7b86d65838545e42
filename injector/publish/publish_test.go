package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
	clocktesting "k8s.io/utils/clock/testing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const name = "rockpool-sidecar"

// api is the part of an API server that a Publisher uses: it watches and applies one ConfigMap in
// each namespace. tests/install uses a real API server.
type api struct {
	t        *testing.T
	mu       sync.Mutex
	have     map[string]string         // content by namespace
	writes   []string                  // namespaces
	fail     map[string]*metav1.Status // by namespace
	written  func(namespace string)    // called after a write, before its answer, without the lock; nil: nothing is
	version  int
	watchers map[chan metav1.WatchEvent]bool
	watches  int
	bytes    int // sent to watches
}

func configMap(namespace, content string, version int) runtime.RawExtension {
	return runtime.RawExtension{Object: &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, ResourceVersion: strconv.Itoa(version)}, Data: map[string]string{"f": content},
	}}
}

// set changes a ConfigMap; "" deletes it.
func (a *api) set(namespace, content string) {
	a.version++
	event := metav1.WatchEvent{Type: string(watch.Modified), Object: configMap(namespace, content, a.version)}
	if content == "" {
		event.Type = string(watch.Deleted)
		delete(a.have, namespace)
	} else {
		if _, ok := a.have[namespace]; !ok {
			event.Type = string(watch.Added)
		}
		a.have[namespace] = content
	}
	for w := range a.watchers {
		w <- event
	}
}

// watch answers a streaming list: the present state, a bookmark, and then each change.
func (a *api) watch(w http.ResponseWriter, r *http.Request) {
	events := make(chan metav1.WatchEvent, 20_000)
	a.mu.Lock()
	a.watches++
	for _, namespace := range slices.Sorted(maps.Keys(a.have)) {
		events <- metav1.WatchEvent{Type: string(watch.Added), Object: configMap(namespace, a.have[namespace], 1)}
	}
	bookmark := configMap("", "", a.version)
	bookmark.Object.(*corev1.ConfigMap).Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	events <- metav1.WatchEvent{Type: string(watch.Bookmark), Object: bookmark}
	a.watchers[events] = true
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.watchers, events)
	}()
	for {
		select {
		case event := <-events:
			text, err := json.Marshal(event)
			if err != nil {
				a.t.Error(err)
			}
			a.mu.Lock()
			a.bytes += len(text)
			a.mu.Unlock()
			if _, err := w.Write(text); err != nil {
				return
			}
			if len(events) == 0 {
				w.(http.Flusher).Flush()
			}
		case <-r.Context().Done():
			return
		}
	}
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if q := r.URL.Query(); r.Method == http.MethodGet && r.URL.Path == "/api/v1/configmaps" && q.Get("fieldSelector") == "metadata.name="+name && q.Get("sendInitialEvents") == "true" {
		a.watch(w, r)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	namespace, ok := strings.CutPrefix(r.URL.Path, "/api/v1/namespaces/")
	namespace, ok2 := strings.CutSuffix(namespace, "/configmaps/"+name)
	query := r.URL.Query()
	if !ok || !ok2 || r.Method != http.MethodPatch || r.Header.Get("Content-Type") != "application/apply-patch+yaml" || query.Get("fieldManager") != FieldManager || query.Get("force") != "true" {
		a.t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
	}
	var object corev1.ConfigMap
	if err := json.NewDecoder(r.Body).Decode(&object); err != nil || object.Name != name || object.Namespace != namespace {
		a.t.Errorf("applied %+v: %v", object, err)
	}
	a.writes = append(a.writes, namespace)
	if status := a.fail[namespace]; status != nil {
		status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
		w.WriteHeader(int(status.Code))
		_ = json.NewEncoder(w).Encode(status)
		return
	}
	a.set(namespace, object.Data["f"])
	if written := a.written; written != nil {
		a.mu.Unlock()
		written(namespace)
		a.mu.Lock()
	}
	_ = json.NewEncoder(w).Encode(object)
}

// publishing is a running Publisher, until the test ends.
type publishing struct {
	*Publisher
	*api
	clock   *clocktesting.FakeClock
	logs    *observer.ObservedLogs
	stop    func()
	changed chan struct{}

	content struct {
		sync.Mutex
		text string
	}
}

func publish(t *testing.T, content string, have map[string]string) *publishing {
	t.Helper()
	if have == nil {
		have = map[string]string{}
	}
	return join(t, &api{t: t, have: have, fail: map[string]*metav1.Status{}, version: 1, watchers: map[chan metav1.WatchEvent]bool{}}, content, nil)
}

// join starts a replica.
func join(t *testing.T, a *api, content string, elect func(context.Context, func(context.Context))) *publishing {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	p := &publishing{api: a, clock: clocktesting.NewFakeClock(time.Now()), logs: logs, changed: make(chan struct{}, 1)}
	p.content.text = content
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	var err error
	p.Publisher, err = New(Options{
		Config: &rest.Config{Host: server.URL, RateLimiter: flowcontrol.NewFakeAlwaysRateLimiter()}, Name: name, Key: "f", Changed: p.changed, Clock: p.clock, Log: zap.New(core), Elect: elect,
		Content: func() (string, error) {
			p.content.Lock()
			defer p.content.Unlock()
			if p.content.text == "" {
				return "", errors.New("not read yet")
			}
			return p.content.text, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.Run(ctx) }()
	p.stop = func() { cancel(); <-done }
	t.Cleanup(func() {
		p.stop()
		if transport, ok := p.client.(*rest.RESTClient).Client.Transport.(interface{ CloseIdleConnections() }); ok {
			transport.CloseIdleConnections()
		}
	})
	p.eventually("the present state is known", p.informer.HasSynced)
	return p
}

// change replaces the content to publish.
func (p *publishing) change(content string) {
	p.content.Lock()
	p.content.text = content
	p.content.Unlock()
	p.changed <- struct{}{}
}

func (p *publishing) eventually(what string, condition func() bool) {
	p.t.Helper()
	deadline := time.After(time.Minute)
	for {
		p.api.mu.Lock()
		ok := condition()
		p.api.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-deadline:
			p.t.Fatalf("never: %s\n%v", what, p.logs.All())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (p *publishing) waitForContent(want map[string]string) {
	p.t.Helper()
	p.eventually("the namespaces have the content", func() bool { return maps.Equal(p.have, want) })
}

func (p *publishing) checkWrites(n int) {
	p.t.Helper()
	p.api.mu.Lock()
	defer p.api.mu.Unlock()
	if len(p.writes) != n {
		p.t.Errorf("written to %q, want %d times", p.writes, n)
	}
}

func TestNamespacesGetTheSettings(t *testing.T) {
	p := publish(t, "one", nil)
	p.Add("shop")
	p.Add("office")
	p.Add("shop") // another pod
	p.waitForContent(map[string]string{"shop": "one", "office": "one"})
	p.checkWrites(2)
	p.change("two")
	p.waitForContent(map[string]string{"shop": "two", "office": "two"})
	p.checkWrites(4)
}

func TestNamespacesFromBeforeTheStartAreUpdated(t *testing.T) {
	p := publish(t, "two", map[string]string{"shop": "one", "office": "two"})
	p.waitForContent(map[string]string{"shop": "two", "office": "two"})
	p.checkWrites(1)
}

func TestChangesOfOtherClientsAreReverted(t *testing.T) {
	p := publish(t, "one", map[string]string{"shop": "one"})
	p.Add("office")
	p.waitForContent(map[string]string{"shop": "one", "office": "one"})
	p.api.mu.Lock()
	p.set("office", "")
	p.set("shop", "other")
	p.api.mu.Unlock()
	p.waitForContent(map[string]string{"shop": "one", "office": "one"})
	p.checkWrites(3)
}

func TestAConfigMapThatIsDeletedBeforeItsWriteIsAnsweredIsWrittenAgain(t *testing.T) {
	p := publish(t, "one", nil)
	deleted := false
	p.api.mu.Lock()
	p.api.written = func(string) {
		if deleted {
			return
		}
		deleted = true
		p.eventually("the write is seen", func() bool { return p.published("shop") != "" })
		p.api.mu.Lock()
		p.set("shop", "")
		p.api.mu.Unlock()
		p.eventually("the deletion is noticed", func() bool {
			p.Publisher.mu.Lock()
			defer p.Publisher.mu.Unlock()
			return p.published("shop") == "" && p.next > 1
		})
	}
	p.api.mu.Unlock()
	p.Add("shop")
	p.eventually("it is written twice", func() bool { return len(p.writes) == 2 })
	p.waitForContent(map[string]string{"shop": "one"})
}

func TestNothingIsWrittenBeforeTheContentIsKnown(t *testing.T) {
	p := publish(t, "", map[string]string{"shop": "one"})
	p.Add("office")
	p.checkWrites(0)
	p.change("two")
	p.waitForContent(map[string]string{"shop": "two", "office": "two"})
}

func TestADeletedNamespaceIsForgotten(t *testing.T) {
	terminating := apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, name, errors.New("it is being terminated")).ErrStatus
	terminating.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	missing := apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "gone").ErrStatus
	for what, status := range map[string]*metav1.Status{"deleted": &missing, "terminating": &terminating} {
		t.Run(what, func(t *testing.T) {
			p := publish(t, "one", nil)
			p.api.mu.Lock()
			p.fail["gone"] = status
			p.api.mu.Unlock()
			p.Add("gone")
			p.Add("shop")
			p.waitForContent(map[string]string{"shop": "one"})
			p.eventually("it was tried", func() bool { return slices.Contains(p.writes, "gone") })
			p.change("two")
			p.waitForContent(map[string]string{"shop": "two"})
			if n := p.logs.Len(); n > 0 {
				t.Errorf("logged: %v", p.logs.All())
			}
			p.stop()
			p.eventually("it is tried once only", func() bool {
				return len(slices.DeleteFunc(slices.Clone(p.writes), func(n string) bool { return n != "gone" })) == 1
			})
		})
	}
}

func TestAFailedWriteIsRetriedAndLoggedOnce(t *testing.T) {
	p := publish(t, "one", nil)
	full := apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, name, errors.New("exceeded quota")).ErrStatus
	p.api.mu.Lock()
	p.fail["shop"] = &full
	p.api.mu.Unlock()
	p.Add("shop")
	p.Add("office") // must not wait for it
	p.waitForContent(map[string]string{"office": "one"})
	p.eventually("it was tried", func() bool { return slices.Contains(p.writes, "shop") })
	p.clock.Step(RetryInterval)
	p.eventually("it is tried again", func() bool { return len(p.writes) > 2 })
	p.api.mu.Lock()
	delete(p.fail, "shop")
	p.api.mu.Unlock()
	p.clock.Step(RetryInterval)
	p.waitForContent(map[string]string{"shop": "one", "office": "one"})
	if n := p.logs.FilterMessageSnippet("cannot write the ConfigMap").Len(); n != 1 {
		t.Errorf("logged %d times: %v", n, p.logs.All())
	}
}

// Other replicas do not know a pod that was admitted a moment before the end.
func TestTheLastNamespaceIsWrittenAtTheEnd(t *testing.T) {
	p := publish(t, "", nil)
	p.Add("shop")
	p.content.Lock()
	p.content.text = "one"
	p.content.Unlock()
	p.stop()
	p.waitForContent(map[string]string{"shop": "one"})
}

// election lets the test choose who leads.
type election struct{ elected chan struct{} }

func (e *election) run(ctx context.Context, lead func(context.Context)) {
	select {
	case <-e.elected:
		lead(ctx)
	case <-ctx.Done():
	}
}

func TestOneReplicaWritesAChangeAndTheOthersStandBy(t *testing.T) {
	first, second := &election{make(chan struct{})}, &election{make(chan struct{})}
	one := publish(t, "one", map[string]string{"shop": "one", "office": "one"})
	one.stop() // its API server is used by two others
	a := one.api
	p, q := join(t, a, "one", first.run), join(t, a, "one", second.run)
	close(first.elected)
	p.eventually("the first leads", p.leading.Load)
	q.change("two")
	p.change("two")
	p.waitForContent(map[string]string{"shop": "two", "office": "two"})
	p.checkWrites(2)

	q.Add("new") // only the replica with its review knows this namespace
	p.waitForContent(map[string]string{"shop": "two", "office": "two", "new": "two"})
	p.checkWrites(3)

	p.stop()
	q.change("three")
	close(second.elected)
	q.waitForContent(map[string]string{"shop": "three", "office": "three", "new": "three"})
	q.checkWrites(6)
}

func TestAChangeReachesFiveThousandNamespacesOnceAndWithoutLists(t *testing.T) {
	if took := 5000 / WritesPerSecond; took > 25 {
		t.Errorf("5,000 writes take %d s", took)
	}
	have, want := map[string]string{}, map[string]string{}
	for i := range 5000 {
		have[fmt.Sprintf("n%d", i)], want[fmt.Sprintf("n%d", i)] = "one", "two"
	}
	standby := &election{make(chan struct{})}
	p := publish(t, "one", have)
	q := join(t, p.api, "one", standby.run)
	p.api.mu.Lock()
	initial := p.bytes
	p.api.mu.Unlock()
	q.change("two")
	p.change("two")
	p.eventually("all are written to", func() bool { return len(p.writes) >= 5000 })
	p.waitForContent(want)
	p.checkWrites(5000)
	for range 6 { // nothing happens any more
		p.clock.Step(RetryInterval)
	}
	p.api.mu.Lock()
	defer p.api.mu.Unlock()
	if p.watches != 2 || p.bytes > 2*initial+initial/10 {
		t.Errorf("%d watches; %d bytes at first, %d in all", p.watches, initial, p.bytes)
	}
}
