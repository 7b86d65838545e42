package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/semaphore"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/injector/inject"
	"rockpool.dev/injector/patch"
)

// Paths for reviews: of pods that ask for Rockpool themselves, and of pods whose namespace asks.
// The API server chooses the path, because it knows the namespace's labels best.
const (
	Path          = "/inject"
	NamespacePath = "/inject/namespace"
)

// Lookup provides facts that are not in a review. An error means that the fact is unknown now.
type Lookup interface {
	// Namespace returns labels and annotations.
	Namespace(ctx context.Context, name string) (*metav1.ObjectMeta, error)
	// KubeletVersion of a node, as in v1.36.3.
	KubeletVersion(ctx context.Context, node string) (string, error)
}

// lookupTimeout limits how long a review waits for its lookups; the API server waits 5 s for it.
const lookupTimeout = time.Second

// handler answers reviews over HTTP.
type handler struct {
	params   func() (inject.Params, error)
	lookup   Lookup                    // nil = no facts
	injected func(namespace string)    // nil = no call
	excluded map[string]bool           // namespaces
	caller   func(*http.Request) error // nil = everybody
	log      *zap.Logger
	bodies   bodies
	// inject is inject.Inject; tests put a failing one here.
	inject func(*corev1.Pod, inject.Facts, inject.Params) (*corev1.Pod, inject.Result)
}

// NewHandler returns the handler for [Path] and [NamespacePath]. Without a Lookup, it assumes
// that namespaces forbid nothing and every kubelet is new enough.
func NewHandler(o Options) http.Handler {
	h := &handler{
		params: o.Params, lookup: o.Lookup, injected: o.Injected, log: o.Log, excluded: map[string]bool{},
		bodies: bodies{memory: semaphore.NewWeighted(maxReading)}, inject: inject.Inject,
	}
	for _, namespace := range o.ExcludedNamespaces {
		h.excluded[namespace] = true
	}
	if o.Clients != nil {
		h.caller = o.Clients.check
	}
	return h
}

// Always returns params as [Options.Params].
func Always(params inject.Params) func() (inject.Params, error) {
	return func() (inject.Params, error) { return params, nil }
}

// ServeHTTP answers one review. An HTTP status other than 200 means that the request is not a
// review; the API server then applies the failurePolicy.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	review, release, problem := h.readReview(w, r)
	if problem != nil {
		h.log.Warn("request rejected", zap.Int("status", problem.status), zap.String("reason", problem.text),
			zap.String("remote", r.RemoteAddr))
		malformed.Inc()
		http.Error(w, problem.text, problem.status)
		return
	}
	defer release()
	response, outcome := h.answer(review, h.facts(r, review))
	has := outcome.Outcome == inject.Injected || outcome.Outcome == inject.Unchanged
	if dry := review.request.DryRun; has && h.injected != nil && (dry == nil || !*dry) {
		h.injected(review.request.Namespace)
	}
	duration := time.Since(start)
	reviews.WithLabelValues(string(outcome.Outcome), string(outcome.Cause.Reason)).Inc()
	seconds.Observe(duration.Seconds())
	for _, n := range outcome.Notices {
		notices.WithLabelValues(string(n.Reason)).Inc()
	}
	h.log.Info("review",
		zap.String("outcome", string(outcome.Outcome)), zap.String("reason", string(outcome.Cause.Reason)), zap.String("detail", outcome.Cause.Detail),
		zap.String("namespace", review.request.Namespace), zap.String("pod", review.pod.Name), zap.String("generateName", review.pod.GenerateName),
		zap.String("uid", string(review.request.UID)), zap.Duration("duration", duration))

	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"},
		Response: response,
	})
	if err != nil {
		h.log.Error("marshal the answer", zap.Error(err))
		http.Error(w, "marshal the answer: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// An error means that the client has closed the connection.
	_, _ = w.Write(body)
}

// facts looks up the facts about a pod that asks for Rockpool. The pod is injected even if
// lookups fail: if its namespace forbids the additions, or its kubelet is too old, the API
// server or the kubelet will report that.
func (h *handler) facts(r *http.Request, review *review) inject.Facts {
	facts := inject.Facts{Namespace: review.request.Namespace, Review: string(review.request.UID), Asked: r.URL.Path == NamespacePath}
	if h.lookup == nil || !inject.Requested(review.pod.Annotations, facts.Asked) {
		return facts
	}
	ctx, cancel := context.WithTimeout(r.Context(), lookupTimeout)
	defer cancel()
	unknown := func(what, name string, err error) {
		failedLookups.WithLabelValues(what).Inc()
		h.log.Warn("lookup failed; injecting without it", zap.String("what", what), zap.String("name", name),
			zap.Error(err))
	}
	if namespace, err := h.lookup.Namespace(ctx, facts.Namespace); err != nil {
		unknown("namespace", facts.Namespace, err)
	} else {
		facts.NamespaceLabels, facts.NamespaceAnnotations = namespace.Labels, namespace.Annotations
	}
	if node := inject.NodeOf(review.pod); node != "" {
		version, err := h.lookup.KubeletVersion(ctx, node)
		if err != nil {
			unknown("node", node, err)
		}
		facts.KubeletVersion = version
	}
	return facts
}

// outcomeFailed is the outcome of a review that fails because of an error of the injector. It
// is used in metrics and logs only.
const outcomeFailed inject.Outcome = "failed"

// answer decides on a review, and always returns a response. An error or panic of the injector
// refuses this pod with code 500, and does not affect other reviews.
func (h *handler) answer(review *review, facts inject.Facts) (response *admissionv1.AdmissionResponse, result inject.Result) {
	fail := func(problem any, stack []byte) {
		h.log.Error("review failed", zap.Any("problem", problem), zap.String("uid", string(review.request.UID)),
			zap.ByteString("stack", stack))
		result = inject.Result{Outcome: outcomeFailed}
		response = &admissionv1.AdmissionResponse{UID: review.request.UID, Result: &metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError,
			Message: "rockpool: the injector failed on this pod; its log says why, under uid " + string(review.request.UID),
		}}
	}
	defer func() {
		if problem := recover(); problem != nil {
			fail(problem, debug.Stack())
		}
	}()

	params, err := h.params()
	if err != nil {
		fail(err, nil)
		return response, result
	}
	patched, result := h.inject(review.pod, facts, params)
	response = &admissionv1.AdmissionResponse{UID: review.request.UID, Allowed: true, Warnings: result.Warnings()}
	switch result.Outcome {
	case inject.Refused:
		response.Allowed = false
		response.Result = &metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid,
			Message: result.Cause.String(),
		}
	case inject.Injected:
		operations, err := patch.Create(review.pod, patched)
		if err != nil {
			fail(fmt.Errorf("create the patch: %w", err), nil)
			return response, result
		}
		patchType := admissionv1.PatchTypeJSONPatch
		response.Patch, response.PatchType = operations, &patchType
	}
	return response, result
}

// problem says why a request is not a review: an HTTP status, and a text that names the field.
type problem struct {
	status int
	text   string
}

// readReview returns a review, and a function to call when it is no longer needed.
func (h *handler) readReview(w http.ResponseWriter, r *http.Request) (*review, func(), *problem) {
	refuse := func(status int, text string) (*review, func(), *problem) { return nil, nil, &problem{status, text} }
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return refuse(http.StatusMethodNotAllowed, "POST an AdmissionReview")
	}
	if h.caller != nil {
		if err := h.caller(r); err != nil {
			return refuse(http.StatusUnauthorized, err.Error())
		}
	}
	contentType := r.Header.Get("Content-Type")
	if media, _, err := mime.ParseMediaType(contentType); err != nil || media != "application/json" {
		return refuse(http.StatusUnsupportedMediaType, fmt.Sprintf("Content-Type: %q is not application/json", contentType))
	}
	body, release, err := h.bodies.read(w, r)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return refuse(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body has more than %d bytes", tooLarge.Limit))
	case errors.Is(err, errBusy):
		return refuse(http.StatusServiceUnavailable, err.Error())
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse(http.StatusRequestTimeout, fmt.Sprintf("the body did not come within %s", bodyTimeout))
	case err != nil:
		return refuse(http.StatusBadRequest, "read the body: "+err.Error())
	}
	review, err := parseReview(body)
	if err == nil && h.excluded[review.request.Namespace] {
		release()
		return refuse(http.StatusForbidden, fmt.Sprintf("request.namespace: %q is excluded by --excluded-namespaces; "+
			"correct the namespaceSelector of the webhook", review.request.Namespace))
	}
	if err != nil {
		release()
		return refuse(http.StatusBadRequest, err.Error())
	}
	return review, release, nil
}
