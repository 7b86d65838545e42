package webhook

import (
	"errors"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation"
)

// review is the API server's request and the pod in it.
type review struct {
	request *admissionv1.AdmissionRequest
	pod     *corev1.Pod
}

// parseReview reads an AdmissionReview about the creation of a pod. Field names are
// case-sensitive, as for the API server: otherwise the two could see different pods in
// the same bytes. An error names the field.
func parseReview(body []byte) (*review, error) {
	var r admissionv1.AdmissionReview
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, fmt.Errorf("the body is not an AdmissionReview: %w", err)
	}
	if want := admissionv1.SchemeGroupVersion.String(); r.APIVersion != want || r.Kind != "AdmissionReview" {
		return nil, fmt.Errorf("apiVersion, kind: %q, %q are not %q, \"AdmissionReview\"; "+
			"admissionReviewVersions of the webhook must be [v1]", r.APIVersion, r.Kind, want)
	}
	request := r.Request
	switch {
	case request == nil:
		return nil, errors.New("request: missing")
	case request.UID == "":
		return nil, errors.New("request.uid: missing")
	case request.Resource.Group != "" || request.Resource.Version != "v1" || request.Resource.Resource != "pods" || request.SubResource != "":
		return nil, fmt.Errorf("request.resource: %s/%s %s %s is not v1 pods; correct the rules of the webhook",
			request.Resource.Group, request.Resource.Version, request.Resource.Resource, request.SubResource)
	case request.Operation != admissionv1.Create:
		return nil, fmt.Errorf("request.operation: %q is not CREATE; correct the rules of the webhook", request.Operation)
	case len(validation.IsDNS1123Label(request.Namespace)) > 0:
		// Any program that reaches the port can send reviews. The injector remembers namespaces
		// and writes to them.
		return nil, fmt.Errorf("request.namespace: %q is not the name of a namespace", request.Namespace)
	case len(request.Object.Raw) == 0:
		return nil, errors.New("request.object: missing")
	}
	pod := &corev1.Pod{}
	if err := json.Unmarshal(request.Object.Raw, pod); err != nil {
		return nil, fmt.Errorf("request.object: not a pod: %w", err)
	}
	if len(pod.Spec.Containers) == 0 {
		return nil, errors.New("request.object.spec.containers: missing")
	}
	return &review{request: request, pod: pod}, nil
}
