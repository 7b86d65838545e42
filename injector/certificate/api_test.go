package certificate

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/rest"
)

var objects = ObjectNames{Namespace: "rockpool-system", Secret: "certificate", Service: "rockpool-injector", Configuration: "rockpool-injector"}

// api is the part of an API server that a Rotator uses: one Secret and one configuration, with
// optimistic concurrency. tests/install uses a real API server.
type api struct {
	mu      sync.Mutex
	version int
	secret  *corev1.Secret
	config  *admissionregistrationv1.MutatingWebhookConfiguration
	writes  []string
	// before is called with the method and path of each request, and may answer it with an HTTP
	// status. nil = no calls.
	before func(call string) int
	url    string
}

func newAPI(t *testing.T) *api {
	service := func(name string) admissionregistrationv1.WebhookClientConfig {
		return admissionregistrationv1.WebhookClientConfig{Service: &admissionregistrationv1.ServiceReference{Namespace: objects.Namespace, Name: name}}
	}
	a := &api{config: &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: objects.Configuration, ResourceVersion: "1"},
		Webhooks: []admissionregistrationv1.MutatingWebhook{
			{Name: "pods", ClientConfig: service(objects.Service)},
			{Name: "another", ClientConfig: service("other")},
			{Name: "namespaces", ClientConfig: service(objects.Service)},
		},
	}}
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	a.url = server.URL
	return a
}

func (a *api) restConfig() *rest.Config { return &rest.Config{Host: a.url, QPS: -1} }

func (a *api) bundle(webhook int) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.config.Webhooks[webhook].ClientConfig.CABundle
}

// edit changes the Secret like another client; nil deletes it.
func (a *api) edit(change func(*corev1.Secret) *corev1.Secret) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.secret = change(a.secret.DeepCopy())
	if a.secret != nil {
		a.secret.ResourceVersion = a.next()
	}
}

func (a *api) next() string {
	a.version++
	return strconv.Itoa(a.version)
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	before := a.before
	a.mu.Unlock()
	if before != nil {
		if code := before(r.Method + " " + r.URL.Path); code != 0 {
			fail(w, code, "")
			return
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		fail(w, http.StatusBadRequest, "")
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	const secrets = "/api/v1/namespaces/rockpool-system/secrets"
	switch r.Method + " " + r.URL.Path {
	case "GET " + secrets + "/certificate":
		if a.secret == nil {
			fail(w, http.StatusNotFound, metav1.StatusReasonNotFound)
			return
		}
		answer(w, a.secret)
	case "POST " + secrets, "PUT " + secrets + "/certificate":
		var secret corev1.Secret
		if err := json.Unmarshal(body, &secret); err != nil {
			fail(w, http.StatusBadRequest, "")
			return
		}
		if r.Method == http.MethodPost && a.secret != nil {
			fail(w, http.StatusConflict, metav1.StatusReasonAlreadyExists)
			return
		}
		if r.Method == http.MethodPut && (a.secret == nil || secret.ResourceVersion != a.secret.ResourceVersion) {
			fail(w, http.StatusConflict, metav1.StatusReasonConflict)
			return
		}
		secret.ResourceVersion = a.next()
		a.secret = &secret
		a.writes = append(a.writes, "secret")
		answer(w, a.secret)
	case "GET /apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/rockpool-injector":
		answer(w, a.config)
	case "PATCH /apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/rockpool-injector":
		a.patch(w, body)
	default:
		fail(w, http.StatusForbidden, metav1.StatusReasonForbidden)
	}
}

func (a *api) patch(w http.ResponseWriter, body []byte) {
	if !strings.Contains(string(body), `"resourceVersion":"`+a.config.ResourceVersion+`"`) {
		fail(w, http.StatusConflict, metav1.StatusReasonConflict)
		return
	}
	old, err := json.Marshal(a.config)
	if err != nil {
		panic(err)
	}
	merged, err := strategicpatch.StrategicMergePatch(old, body, a.config)
	if err != nil {
		fail(w, http.StatusBadRequest, metav1.StatusReasonBadRequest)
		return
	}
	var config admissionregistrationv1.MutatingWebhookConfiguration
	if err := json.Unmarshal(merged, &config); err != nil {
		panic(err)
	}
	config.ResourceVersion = a.next()
	a.config = &config
	a.writes = append(a.writes, "caBundle")
	answer(w, a.config)
}

func answer(w http.ResponseWriter, object any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(object) // the client reports it
}

func fail(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: string(reason)})
}
