package publish

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	clocktesting "k8s.io/utils/clock/testing"

	"rockpool.dev/tests/eventually"
)

// secrets is an API server with Secrets.
type secrets struct {
	mu      sync.Mutex
	have    map[string]corev1.Secret // by namespace and name
	writes  []string
	foreign string // a Secret that another manager owns
}

func (a *secrets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	parts := strings.Split(r.URL.Path, "/") // /api/v1/namespaces/N/secrets/S
	key := parts[4] + "/" + parts[6]
	fail := func(status metav1.Status) {
		status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
		w.WriteHeader(int(status.Code))
		_ = json.NewEncoder(w).Encode(status)
	}
	if r.Method == http.MethodPatch {
		if key == a.foreign && r.URL.Query().Get("force") != "true" {
			fail(apierrors.NewConflict(corev1.Resource("secrets"), key, context.Canceled).ErrStatus)
			return
		}
		var given corev1.Secret
		if err := json.NewDecoder(r.Body).Decode(&given); err != nil {
			fail(apierrors.NewBadRequest(err.Error()).ErrStatus)
			return
		}
		a.writes = append(a.writes, key)
		a.have[key] = given
	}
	got, ok := a.have[key]
	if !ok {
		fail(apierrors.NewNotFound(corev1.Resource("secrets"), key).ErrStatus)
		return
	}
	got.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}
	_ = json.NewEncoder(w).Encode(got)
}

func (a *secrets) set(key string, kind corev1.SecretType, content string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, name, _ := strings.Cut(key, "/")
	a.have[key] = corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Type: kind, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(content)},
	}
}

func (a *secrets) written() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	writes := slices.Clone(a.writes)
	slices.Sort(writes)
	return writes
}

func TestPullSecretsAreCopiedWhereTheyHaveChanged(t *testing.T) {
	a := &secrets{have: map[string]corev1.Secret{}, foreign: "office/edge"}
	a.set("rockpool-system/edge", corev1.SecretTypeDockerConfigJson, "hush-1")
	a.set("rockpool-system/opaque", corev1.SecretTypeOpaque, "hush-other")
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	publisher, err := New(Options{Config: &rest.Config{Host: server.URL}, Name: name, Key: "f", Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.InfoLevel)
	fake := clocktesting.NewFakeClock(time.Now())
	s := publisher.PullSecrets("rockpool-system", func() []string { return []string{"edge", "opaque", "missing"} })
	s.Clock, s.Log = fake, zap.New(core)
	var mu sync.Mutex
	namespaces := []string{"shop", "rockpool-system", "office"}
	s.Namespaces = func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(namespaces)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		s.Client.(*rest.RESTClient).Client.CloseIdleConnections()
	})
	wrote := func(want ...string) {
		t.Helper()
		eventually.True(t, strings.Join(want, " "), func() bool { return slices.Equal(a.written(), want) })
	}
	next := func() {
		eventually.True(t, "it waits", fake.HasWaiters)
		fake.Step(CopyInterval)
	}
	wrote("shop/edge")
	next()
	mu.Lock()
	namespaces = append(namespaces, "new")
	mu.Unlock()
	next()
	wrote("new/edge", "shop/edge")
	a.set("rockpool-system/edge", corev1.SecretTypeDockerConfigJson, "hush-2")
	next()
	wrote("new/edge", "new/edge", "shop/edge", "shop/edge")
	a.mu.Lock()
	if got := a.have["shop/edge"]; string(got.Data[corev1.DockerConfigJsonKey]) != "hush-2" || got.Type != corev1.SecretTypeDockerConfigJson {
		t.Errorf("copied: %s", got.Type)
	}
	a.mu.Unlock()
	eventually.True(t, "problems are logged", func() bool { return logs.Len() > 0 })
	text := logs.All()[0].ContextMap()["error"].(string)
	for _, want := range []string{"namespace office: ", `opaque: its type is "Opaque"`, "missing"} {
		if !strings.Contains(text, want) {
			t.Errorf("the log does not name %s: %s", want, text)
		}
	}
	for _, line := range logs.All() {
		if strings.Contains(line.ContextMap()["error"].(string), "hush") {
			t.Error("a Secret is in the log")
		}
	}
}
