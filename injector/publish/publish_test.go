package publish

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
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
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	clocktesting "k8s.io/utils/clock/testing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const name = "rockpool-sidecar"

// api is the part of an API server that a Publisher uses: it lists and applies one ConfigMap in
// each namespace. tests/e2e uses a real API server.
type api struct {
	t      *testing.T
	mu     sync.Mutex
	have   map[string]string         // content by namespace
	writes []string                  // namespaces
	fail   map[string]*metav1.Status // by namespace
	reads  int
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if r.Method == http.MethodGet && r.URL.Path == "/api/v1/configmaps" && r.URL.Query().Get("fieldSelector") == "metadata.name="+name {
		a.reads++
		list := corev1.ConfigMapList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMapList"}}
		for _, namespace := range slices.Sorted(maps.Keys(a.have)) {
			list.Items = append(list.Items, corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: map[string]string{"f": a.have[namespace]}})
		}
		_ = json.NewEncoder(w).Encode(list)
		return
	}
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
	a.have[namespace] = object.Data["f"]
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
	core, logs := observer.New(zap.InfoLevel)
	p := &publishing{api: &api{t: t, have: have, fail: map[string]*metav1.Status{}}, clock: clocktesting.NewFakeClock(time.Now()), logs: logs, changed: make(chan struct{}, 1)}
	if have == nil {
		p.have = map[string]string{}
	}
	p.content.text = content
	server := httptest.NewServer(p.api)
	t.Cleanup(server.Close)
	var err error
	p.Publisher, err = New(Options{
		Config: &rest.Config{Host: server.URL}, Name: name, Key: "f", Changed: p.changed, Clock: p.clock, Log: zap.New(core),
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
	p.eventually("the first read", func() bool { return p.reads > 0 })
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
	deadline := time.After(10 * time.Second)
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
	delete(p.have, "office")
	p.have["shop"] = "other"
	p.api.mu.Unlock()
	p.clock.Step(DefaultInterval)
	p.waitForContent(map[string]string{"shop": "one", "office": "one"})
	p.checkWrites(3)
}

// If all replicas have the same settings, there is nothing to write.
func TestReplicasDoNotOverwriteEachOther(t *testing.T) {
	p := publish(t, "one", map[string]string{"shop": "one"})
	reads := 0
	p.eventually("a read", func() bool { reads = p.reads; return true })
	for range 3 {
		p.clock.Step(DefaultInterval)
		p.eventually("another read", func() bool { return p.reads > reads })
		reads++
	}
	p.checkWrites(0)
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
	p.clock.Step(DefaultInterval)
	p.eventually("it is tried again", func() bool { return len(p.writes) > 2 })
	p.api.mu.Lock()
	delete(p.fail, "shop")
	p.api.mu.Unlock()
	p.clock.Step(DefaultInterval)
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
