package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/injector/inject"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testParams = inject.Params{Version: "v1", Image: "rockpool:dev", CacheHostPath: inject.DefaultCacheHostPath}

const testPod = `{"metadata":{"name":"web","annotations":{"rockpool.dev/inject":"true"%s}},"spec":{
	"containers":[{"name":"web","image":"web","env":[{"name":"A","value":"b"}],"volumeMounts":[{"name":"t","mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}]}],
	"volumes":[{"name":"t","projected":{"sources":[{"serviceAccountToken":{"path":"token"}}]}}]}}`

// reviewOf returns a review of pod; each pair in replaced is an old and a new text.
func reviewOf(pod string, replaced ...string) string {
	return strings.NewReplacer(replaced...).Replace(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u-1",` +
		`"resource":{"group":"","version":"v1","resource":"pods"},"operation":"CREATE","namespace":"shop","object":` + pod + `}}`)
}

func plainPod(annotations string) string { return fmt.Sprintf(testPod, annotations) }

func post(h http.Handler, contentType, body string) *httptest.ResponseRecorder {
	request := httptest.NewRequest(http.MethodPost, Path, strings.NewReader(body))
	request.Header.Set("Content-Type", contentType)
	recorder := httptest.NewRecorder()
	h.ServeHTTP(recorder, request)
	return recorder
}

func answerOf(t *testing.T, recorder *httptest.ResponseRecorder) *admissionv1.AdmissionResponse {
	t.Helper()
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(recorder.Body.Bytes(), &review); err != nil || recorder.Code != http.StatusOK {
		t.Fatalf("HTTP %d, %v: %s", recorder.Code, err, recorder.Body)
	}
	if review.APIVersion != "admission.k8s.io/v1" || review.Kind != "AdmissionReview" || review.Response == nil || review.Request != nil {
		t.Fatalf("not an answer: %s", recorder.Body)
	}
	if got := recorder.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
	return review.Response
}

func TestInvalidRequestsAreRejectedWithTheField(t *testing.T) {
	const jsonType = "application/json"
	tests := []struct {
		name, contentType, body string
		status                  int
		want                    string
	}{
		{"another content type", "text/plain", "{}", 415, `Content-Type: "text/plain"`},
		{"no content type", "", "{}", 415, `Content-Type: ""`},
		{"not JSON", jsonType, "x", 400, "the body is not an AdmissionReview"},
		{"an empty body", jsonType, "", 400, "the body is not an AdmissionReview"},
		{"another kind", jsonType, `{"apiVersion":"v1","kind":"Pod"}`, 400, `apiVersion, kind: "v1", "Pod"`},
		{"an older API version", jsonType, reviewOf(plainPod(""), "admission.k8s.io/v1", "admission.k8s.io/v1beta1"), 400, "admissionReviewVersions of the webhook must be [v1]"},
		{"field names in another case", jsonType, reviewOf(plainPod(""), `"request"`, `"Request"`), 400, "request: missing"},
		{"no uid", jsonType, reviewOf(plainPod(""), "u-1", ""), 400, "request.uid: missing"},
		{"no namespace", jsonType, reviewOf(plainPod(""), `"shop"`, `""`), 400, `request.namespace: ""`},
		{"a path in place of a namespace", jsonType, reviewOf(plainPod(""), "shop", "../nodes"), 400, `request.namespace: "../nodes"`},
		{"another resource", jsonType, reviewOf(plainPod(""), `"pods"`, `"secrets"`), 400, "request.resource: "},
		{"a subresource", jsonType, reviewOf(plainPod(""), `"operation"`, `"subResource":"exec","operation"`), 400, "request.resource: "},
		{"another operation", jsonType, reviewOf(plainPod(""), "CREATE", "UPDATE"), 400, `request.operation: "UPDATE"`},
		{"no object", jsonType, reviewOf("null"), 400, "request.object: missing"},
		{"an object of another shape", jsonType, reviewOf(`{"spec":{"containers":{}}}`), 400, "request.object: not a pod"},
		{"a pod without containers", jsonType, reviewOf(`{"spec":{}}`), 400, "request.object.spec.containers: missing"},
		{"an endless body", jsonType, strings.Repeat(" ", MaxReviewBytes+1), 413, "more than 4194304 bytes"},
	}
	h := NewHandler(Options{Params: Always(testParams), Log: zap.NewNop()})
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before := testutil.ToFloat64(malformed)
			got := post(h, test.contentType, test.body)
			if got.Code != test.status || !strings.Contains(got.Body.String(), test.want) {
				t.Errorf("HTTP %d: %s; want %d with %s", got.Code, got.Body, test.status, test.want)
			}
			if testutil.ToFloat64(malformed) != before+1 {
				t.Error("not counted")
			}
		})
	}
	t.Run("another method", func(t *testing.T) {
		recorder := httptest.NewRecorder()
		h.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, Path, nil))
		if recorder.Code != http.StatusMethodNotAllowed || recorder.Header().Get("Allow") != http.MethodPost {
			t.Errorf("HTTP %d, %v", recorder.Code, recorder.Header())
		}
	})
}

func TestReviewsAreAnswered(t *testing.T) {
	tests := []struct {
		name, pod       string
		allowed, patch  bool
		warning         string
		message         string
		outcome, reason string
	}{
		{name: "a pod that asks is patched", pod: plainPod(""), allowed: true, patch: true, outcome: "injected"},
		{name: "a pod that cannot be served is admitted with a warning", pod: strings.Replace(plainPod(""), `"spec":{`, `"spec":{"hostNetwork":true,`, 1),
			allowed: true, warning: "rockpool: host-network: ", outcome: "skipped", reason: "host-network"},
		{name: "a pod that does not ask is admitted without a warning", pod: strings.Replace(plainPod(""), `"true"`, `"false"`, 1), allowed: true, outcome: "skipped", reason: "not-requested"},
		{name: "a pod with an invalid annotation is refused", pod: plainPod(`,"rockpool.dev/log-level":"loud"`),
			message: `rockpool.dev/log-level: unknown value "loud" (allowed: debug, info, warn, error)`, outcome: "refused", reason: "invalid-annotation"},
	}
	h := NewHandler(Options{Params: Always(testParams), Log: zap.NewNop()})
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			counter := reviews.WithLabelValues(test.outcome, test.reason)
			before := testutil.ToFloat64(counter)
			got := answerOf(t, post(h, "application/json; charset=utf-8", reviewOf(test.pod)))
			if got.UID != "u-1" || got.Allowed != test.allowed {
				t.Errorf("uid %q, allowed %v", got.UID, got.Allowed)
			}
			if has := len(got.Patch) > 0; has != test.patch || has != (got.PatchType != nil && *got.PatchType == admissionv1.PatchTypeJSONPatch) {
				t.Errorf("patch %s, type %v", got.Patch, got.PatchType)
			}
			if strings.Join(got.Warnings, "\n") != "" != (test.warning != "") || !strings.HasPrefix(strings.Join(got.Warnings, "\n"), test.warning) {
				t.Errorf("warnings %q", got.Warnings)
			}
			if !test.allowed && (got.Result == nil || got.Result.Code != 422 || !strings.Contains(got.Result.Message, test.message)) {
				t.Errorf("result %+v", got.Result)
			}
			if testutil.ToFloat64(counter) != before+1 {
				t.Error("not counted")
			}
		})
	}
}

func TestAPanicRefusesOnePodOnly(t *testing.T) {
	core, logs := observer.New(zap.ErrorLevel)
	broken := true
	h := NewHandler(Options{Params: Always(testParams), Log: zap.New(core)}).(*handler)
	h.inject = func(pod *corev1.Pod, facts inject.Facts, p inject.Params) (*corev1.Pod, inject.Result) {
		if broken {
			panic("tide")
		}
		return inject.Inject(pod, facts, p)
	}
	got := answerOf(t, post(h, "application/json", reviewOf(plainPod(""))))
	if got.Allowed || got.UID != "u-1" || got.Result == nil || got.Result.Code != 500 || strings.Contains(got.Result.Message, "tide") {
		t.Errorf("answer %+v", got)
	}
	if logs.Len() != 1 || logs.All()[0].ContextMap()["problem"] != "tide" || !strings.Contains(fmt.Sprint(logs.All()[0].ContextMap()["stack"]), "handler_test.go") {
		t.Errorf("the log does not say why: %v", logs.All())
	}
	broken = false
	if got := answerOf(t, post(h, "application/json", reviewOf(plainPod("")))); !got.Allowed {
		t.Errorf("the next pod: %+v", got)
	}
}

// fakeLookup fails for namespaces without labels and for nodes without kubelet.
type fakeLookup struct {
	labels  map[string]string
	kubelet string
	asked   *[]string
}

func (c fakeLookup) Namespace(_ context.Context, name string) (*metav1.ObjectMeta, error) {
	*c.asked = append(*c.asked, "namespace "+name)
	if c.labels == nil {
		return nil, errors.New("no way there")
	}
	return &metav1.ObjectMeta{Labels: c.labels}, nil
}

func (c fakeLookup) KubeletVersion(_ context.Context, name string) (string, error) {
	*c.asked = append(*c.asked, "node "+name)
	if c.kubelet == "" {
		return "", errors.New("no way there")
	}
	return c.kubelet, nil
}

func TestInjectedIsCalledWithTheNamespace(t *testing.T) {
	injected := plainPod("")
	var called []string
	h := NewHandler(Options{Params: Always(testParams), Log: zap.NewNop(), Injected: func(namespace string) { called = append(called, namespace) }})
	tests := []struct {
		name, body string
		want       int
	}{
		{"a pod that is injected", reviewOf(injected), 1},
		{"a pod that declines", reviewOf(injected, `"rockpool.dev/inject":"true"`, `"rockpool.dev/inject":"false"`), 0},
		{"a pod that is refused", reviewOf(plainPod(`,"rockpool.dev/port":"1"`)), 0},
		{"a dry run", reviewOf(injected, `"operation"`, `"dryRun":true,"operation"`), 0},
	}
	for _, test := range tests {
		called = nil
		answerOf(t, post(h, "application/json", test.body))
		if len(called) != test.want || test.want > 0 && called[0] != "shop" {
			t.Errorf("%s: called with %q", test.name, called)
		}
	}
}

func TestWithoutSettingsPodsAreRefused(t *testing.T) {
	h := NewHandler(Options{Params: func() (inject.Params, error) { return inject.Params{}, errors.New("unread") }, Log: zap.NewNop()})
	if response := answerOf(t, post(h, "application/json", reviewOf(plainPod("")))); response.Allowed || response.Result.Code != http.StatusInternalServerError {
		t.Errorf("%+v", response)
	}
}

func TestNamespaceAndNodeAreLookedUp(t *testing.T) {
	bound := strings.Replace(plainPod(""), `"spec":{`, `"spec":{"nodeName":"edge-1",`, 1)
	silent := strings.Replace(plainPod(""), `"rockpool.dev/inject":"true"`, ``, 1)
	baseline := map[string]string{"pod-security.kubernetes.io/enforce": "baseline"}
	tests := []struct {
		name, path, pod string
		lookup          fakeLookup
		asked           string
		failed          float64
		outcome, want   string // want is in the patch, a warning or the refusal
	}{
		{name: "a pod that is not bound", path: Path, pod: plainPod(""), lookup: fakeLookup{labels: baseline}, asked: "namespace shop", outcome: "injected", want: "pod-security-forbids-hostpath"},
		{name: "a pod on an old node", path: Path, pod: bound, lookup: fakeLookup{labels: baseline, kubelet: "v1.28.0"}, asked: "namespace shop, node edge-1", outcome: "refused", want: "old-kubelet"},
		{name: "failed lookups do not matter", path: Path, pod: bound, asked: "namespace shop, node edge-1", failed: 2, outcome: "injected", want: `"hostPath"`},
		{name: "nothing is looked up for a pod that does not ask", path: Path, pod: silent, outcome: "skipped"},
		{name: "the namespace is looked up if it asks", path: NamespacePath, pod: silent, lookup: fakeLookup{labels: map[string]string{}}, asked: "namespace shop", outcome: "injected", want: `"hostPath"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var asked []string
			test.lookup.asked = &asked
			before := testutil.ToFloat64(failedLookups.WithLabelValues("namespace")) + testutil.ToFloat64(failedLookups.WithLabelValues("node"))
			request := httptest.NewRequest(http.MethodPost, test.path, strings.NewReader(reviewOf(test.pod)))
			request.Header.Set("Content-Type", "application/json")
			recorder := httptest.NewRecorder()
			NewHandler(Options{Params: Always(testParams), Lookup: test.lookup, Log: zap.NewNop()}).ServeHTTP(recorder, request)
			got := answerOf(t, recorder)
			if (len(got.Patch) > 0) != (test.outcome == "injected") || got.Allowed == (test.outcome == "refused") {
				t.Errorf("allowed %v, patch %s; want %s", got.Allowed, got.Patch, test.outcome)
			}
			said := string(got.Patch) + strings.Join(got.Warnings, "\n")
			if got.Result != nil {
				said += got.Result.Message
			}
			if !strings.Contains(said, test.want) {
				t.Errorf("got %s, want %s", said, test.want)
			}
			if strings.Join(asked, ", ") != test.asked {
				t.Errorf("asked %q, want %q", asked, test.asked)
			}
			after := testutil.ToFloat64(failedLookups.WithLabelValues("namespace")) + testutil.ToFloat64(failedLookups.WithLabelValues("node"))
			if after-before != test.failed {
				t.Errorf("%v failures counted, want %v", after-before, test.failed)
			}
		})
	}
}

func FuzzReview(f *testing.F) {
	f.Add([]byte(reviewOf(plainPod(""))))
	f.Add([]byte(reviewOf(plainPod(`,"rockpool.dev/cache-volume":"emptyDir"`))))
	f.Add([]byte(reviewOf(plainPod(`,"rockpool.dev/nope":"x"`))))
	f.Add([]byte(reviewOf(plainPod(""), `"env"`, `"future":[{}],"env"`)))
	f.Add([]byte(reviewOf(`{"spec":{"initContainers":[{"name":"rockpool-sidecar"}],"containers":[{"name":"a"}]},"metadata":{"annotations":{"rockpool.dev/inject":"true","rockpool.dev/status":"{}"}}}`)))
	f.Add([]byte(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":null}`))
	f.Add([]byte("{"))
	core, logs := observer.New(zap.ErrorLevel)
	h := NewHandler(Options{Params: Always(testParams), Log: zap.New(core)})
	f.Fuzz(func(t *testing.T, body []byte) {
		got := post(h, "application/json", string(body))
		if entries := logs.TakeAll(); len(entries) > 0 {
			t.Fatalf("an error of the injector: %v", entries)
		}
		if got.Code != http.StatusOK {
			if got.Code != http.StatusBadRequest || len(bytes.TrimSpace(got.Body.Bytes())) == 0 {
				t.Fatalf("HTTP %d: %q", got.Code, got.Body)
			}
			return
		}
		answer := answerOf(t, got)
		asked, err := parseReview(body)
		if err != nil || answer.UID != asked.request.UID {
			t.Fatalf("uid %q, %v", answer.UID, err)
		}
		if len(answer.Patch) == 0 {
			return
		}
		patch, err := jsonpatch.DecodePatch(answer.Patch)
		if err != nil {
			t.Fatalf("%v: %s", err, answer.Patch)
		}
		output, err := patch.Apply(asked.request.Object.Raw)
		if err != nil {
			t.Fatalf("the patch does not apply: %v\n%s\n%s", err, asked.request.Object.Raw, answer.Patch)
		}
		again := answerOf(t, post(h, "application/json", reviewOf(string(output))))
		if !answer.Allowed || len(again.Patch) != 0 {
			t.Fatalf("injecting again: allowed %v, patch %s", again.Allowed, again.Patch)
		}
	})
}

// Any program that reaches the port may send bodies; their total size is limited.
func TestReviewsWaitWhileOthersUseTheMemory(t *testing.T) {
	h := NewHandler(Options{Params: Always(testParams), Log: zap.NewNop()})
	var bodies []*io.PipeWriter
	var hogs sync.WaitGroup
	for range maxReading / MaxReviewBytes {
		body, writer := io.Pipe()
		bodies = append(bodies, writer)
		request := httptest.NewRequest(http.MethodPost, Path, body) // of unknown length
		request.Header.Set("Content-Type", "application/json")
		hogs.Go(func() { h.ServeHTTP(httptest.NewRecorder(), request) })
		if _, err := writer.Write(bytes.Repeat([]byte(" "), MaxReviewBytes)); err != nil { // the handler reads it
			t.Fatal(err)
		}
	}
	large := reviewOf(plainPod(""), `"name":"web"`, `"name":"web","labels":{"x":"`+strings.Repeat("x", 3*freeBytes)+`"}`)
	ask := func(ctx context.Context, body string) (int, string) {
		request := httptest.NewRequestWithContext(ctx, http.MethodPost, Path, strings.NewReader(body))
		request.Header.Set("Content-Type", "application/json")
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, request)
		return answer.Code, answer.Body.String()
	}
	late, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if code, text := ask(late, large); code != http.StatusServiceUnavailable || !strings.Contains(text, "use up the memory") {
		t.Errorf("HTTP %d while the memory was used up: %s", code, text)
	}
	if code, text := ask(t.Context(), reviewOf(plainPod(""))); code != http.StatusOK {
		t.Errorf("HTTP %d for a small review: %s", code, text)
	}
	for _, writer := range bodies {
		writer.Close()
	}
	hogs.Wait()
	if code, text := ask(t.Context(), large); code != http.StatusOK {
		t.Errorf("HTTP %d when there was memory again: %s", code, text)
	}
	if free := h.(*handler).bodies.memory.TryAcquire(maxReading); !free {
		t.Error("memory is still counted as used")
	}
}

func TestReviewsAboutExcludedNamespacesAreRefused(t *testing.T) {
	var called []string
	h := NewHandler(Options{
		Params: Always(testParams), Log: zap.NewNop(), ExcludedNamespaces: []string{"kube-system"},
		Injected: func(namespace string) { called = append(called, namespace) },
	})
	for namespace, want := range map[string]int{"kube-system": http.StatusForbidden, "shop": http.StatusOK} {
		got := post(h, "application/json", reviewOf(plainPod(""), `"shop"`, `"`+namespace+`"`))
		if got.Code != want {
			t.Errorf("%s: HTTP %d: %s", namespace, got.Code, got.Body)
		}
	}
	if len(called) != 1 || called[0] != "shop" {
		t.Errorf("told to publish in %q", called)
	}
}
