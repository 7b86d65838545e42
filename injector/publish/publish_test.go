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

// api is as much of an API server as a Publisher sees: one ConfigMap in each namespace, read all
// at once and applied. The real one is in tests/e2e.
type api struct {
	t      *testing.T
	mu     sync.Mutex
	have   map[string]string         // content by namespace
	writes []string                  // namespaces
	refuse map[string]*metav1.Status // by namespace
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
	if status := a.refuse[namespace]; status != nil {
		status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
		w.WriteHeader(int(status.Code))
		_ = json.NewEncoder(w).Encode(status)
		return
	}
	a.have[namespace] = object.Data["f"]
	_ = json.NewEncoder(w).Encode(object)
}

// publishing is a Publisher that runs until the test ends.
type publishing struct {
	*Publisher
	*api
	clock *clocktesting.FakeClock
	logs  *observer.ObservedLogs
	stop  func()
	again chan struct{}

	content struct {
		sync.Mutex
		text string
	}
}

func publish(t *testing.T, content string, have map[string]string) *publishing {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	p := &publishing{api: &api{t: t, have: have, refuse: map[string]*metav1.Status{}}, clock: clocktesting.NewFakeClock(time.Now()), logs: logs, again: make(chan struct{}, 1)}
	if have == nil {
		p.have = map[string]string{}
	}
	p.content.text = content
	server := httptest.NewServer(p.api)
	t.Cleanup(server.Close)
	var err error
	p.Publisher, err = New(Options{
		Config: &rest.Config{Host: server.URL}, Name: name, Key: "f", Changed: p.again, Clock: p.clock, Log: zap.New(core),
		Content: func() (string, error) {
			p.content.Lock()
			defer p.content.Unlock()
			if p.content.text == "" {
				return "", errors.New("nothing is known yet")
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
	p.eventually("the first look", func() bool { return p.reads > 0 })
	return p
}

// becomes changes what is to be published.
func (p *publishing) becomes(content string) {
	p.content.Lock()
	p.content.text = content
	p.content.Unlock()
	p.again <- struct{}{}
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

func (p *publishing) has(want map[string]string) {
	p.t.Helper()
	p.eventually("the namespaces have what they should", func() bool { return maps.Equal(p.have, want) })
}

func (p *publishing) written(n int) {
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
	p.has(map[string]string{"shop": "one", "office": "one"})
	p.written(2)
	p.becomes("two")
	p.has(map[string]string{"shop": "two", "office": "two"})
	p.written(4)
}

func TestNamespacesOfBeforeAreKeptInStep(t *testing.T) {
	p := publish(t, "two", map[string]string{"shop": "one", "office": "two"})
	p.has(map[string]string{"shop": "two", "office": "two"})
	p.written(1)
}

func TestWhatSomebodyElseDoesIsUndone(t *testing.T) {
	p := publish(t, "one", map[string]string{"shop": "one"})
	p.Add("office")
	p.has(map[string]string{"shop": "one", "office": "one"})
	p.api.mu.Lock()
	delete(p.have, "office")
	p.have["shop"] = "other"
	p.api.mu.Unlock()
	p.clock.Step(DefaultInterval)
	p.has(map[string]string{"shop": "one", "office": "one"})
	p.written(3)
}

// Two replicas that are of one mind write what is missing, and then nothing.
func TestReplicasDoNotFight(t *testing.T) {
	p := publish(t, "one", map[string]string{"shop": "one"})
	reads := 0
	p.eventually("a look", func() bool { reads = p.reads; return true })
	for range 3 {
		p.clock.Step(DefaultInterval)
		p.eventually("another look", func() bool { return p.reads > reads })
		reads++
	}
	p.written(0)
}

func TestNothingIsWrittenBeforeItIsKnown(t *testing.T) {
	p := publish(t, "", map[string]string{"shop": "one"})
	p.Add("office")
	p.written(0)
	p.becomes("two")
	p.has(map[string]string{"shop": "two", "office": "two"})
}

func TestANamespaceThatIsGoneIsForgotten(t *testing.T) {
	terminating := apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, name, errors.New("it is being terminated")).ErrStatus
	terminating.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	missing := apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "gone").ErrStatus
	for what, status := range map[string]*metav1.Status{"it is not there": &missing, "it is going": &terminating} {
		t.Run(what, func(t *testing.T) {
			p := publish(t, "one", nil)
			p.api.mu.Lock()
			p.refuse["gone"] = status
			p.api.mu.Unlock()
			p.Add("gone")
			p.Add("shop")
			p.has(map[string]string{"shop": "one"})
			p.eventually("it was tried", func() bool { return slices.Contains(p.writes, "gone") })
			p.becomes("two")
			p.has(map[string]string{"shop": "two"})
			if n := p.logs.Len(); n > 0 {
				t.Errorf("complaints: %v", p.logs.All())
			}
			p.stop()
			p.eventually("it is tried once only", func() bool {
				return len(slices.DeleteFunc(slices.Clone(p.writes), func(n string) bool { return n != "gone" })) == 1
			})
		})
	}
}

func TestWhatCannotBeWrittenIsTriedAgainAndToldOnce(t *testing.T) {
	p := publish(t, "one", nil)
	full := apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, name, errors.New("exceeded quota")).ErrStatus
	p.api.mu.Lock()
	p.refuse["shop"] = &full
	p.api.mu.Unlock()
	p.Add("shop")
	p.Add("office") // is not held up by it
	p.has(map[string]string{"office": "one"})
	p.eventually("it was tried", func() bool { return slices.Contains(p.writes, "shop") })
	p.clock.Step(DefaultInterval)
	p.eventually("it is tried again", func() bool { return len(p.writes) > 2 })
	p.api.mu.Lock()
	delete(p.refuse, "shop")
	p.api.mu.Unlock()
	p.clock.Step(DefaultInterval)
	p.has(map[string]string{"shop": "one", "office": "one"})
	if n := p.logs.FilterMessageSnippet("writing the ConfigMap").Len(); n != 1 {
		t.Errorf("told %d times: %v", n, p.logs.All())
	}
}

// A pod that was admitted a moment before the end is known to nobody else.
func TestTheLastNamespaceIsWrittenAtTheEnd(t *testing.T) {
	p := publish(t, "", nil)
	p.Add("shop")
	p.content.Lock()
	p.content.text = "one"
	p.content.Unlock()
	p.stop()
	p.has(map[string]string{"shop": "one"})
}
