package inject

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// maxSegment limits the workload's path segment, in bytes. File systems allow 255.
const maxSegment = 200

// cronJobSuffix is the suffix that the CronJob controller appends to the name of a Job: the
// scheduled time in minutes since 1970, which has eight digits from 1989 to 2160.
var cronJobSuffix = regexp.MustCompile(`-[0-9]{8}$`)

// cacheDirectory returns the pod's directory below the root of the cache volume:
// namespace/serviceaccount/workload. It checks that each is a single path segment.
func cacheDirectory(pod *corev1.Pod, facts *Facts) (string, error) {
	namespace := cmp.Or(facts.Namespace, pod.Namespace)
	if namespace == "" {
		return "", errors.New("the namespace is not known (metadata.namespace)")
	}
	if errs := validation.IsDNS1123Label(namespace); len(errs) > 0 {
		return "", fmt.Errorf("namespace %q is not a DNS label", namespace)
	}
	account := pod.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	if errs := validation.IsDNS1123Subdomain(account); len(errs) > 0 {
		return "", fmt.Errorf("spec.serviceAccountName %q is not a DNS name", account)
	}
	workload, err := workloadSegment(pod, facts.Controller)
	if err != nil {
		return "", err
	}
	return namespace + "/" + account + "/" + workload, nil
}

// workloadSegment names the workload of the pod, so that a replacement pod finds the same
// directory: "kind.name", like "deployment.web". The kind distinguishes a Deployment from a
// StatefulSet of the same name. A kind has no dot, so segments are unique.
//
// An existing pod names its controller in its owner references; for a template it is given.
func workloadSegment(pod *corev1.Pod, controller *metav1.OwnerReference) (string, error) {
	kind, name := "pod", pod.GenerateName
	if owner := cmp.Or(controller, metav1.GetControllerOfNoCopy(pod)); owner != nil {
		kind, name = workloadOf(owner, pod.Labels)
	} else if name != "" {
		// generateName has precedence over the name, which is generated after admission: the
		// directory must be the same before and after.
		name = strings.TrimRight(name, "-.")
	} else {
		name = pod.Name
	}
	kind = strings.ToLower(kind)
	// An owner reference may have any text: the API server only checks that it is not empty.
	if errs := validation.IsDNS1123Label(kind); len(errs) > 0 {
		return "", fmt.Errorf("the kind %q of the controller in metadata.ownerReferences is not a DNS label", kind)
	}
	if errs := validation.IsDNS1123Subdomain(name); len(errs) > 0 {
		return "", fmt.Errorf("the name %q of the %s is not a DNS name", name, kind)
	}
	segment := kind + "." + name
	if len(segment) > maxSegment {
		digest := sha256.Sum256([]byte(segment))
		suffix := "." + hex.EncodeToString(digest[:8])
		segment = segment[:maxSegment-len(suffix)] + suffix
	}
	return segment, nil
}

// workloadOf returns the workload behind a controller that creates a new object for each
// revision or run. The pod does not name that workload, but the controller's name includes it.
func workloadOf(owner *metav1.OwnerReference, podLabels map[string]string) (kind, name string) {
	switch {
	case owner.Kind == "ReplicaSet" && strings.HasPrefix(owner.APIVersion, "apps/"):
		hash := podLabels["pod-template-hash"]
		if deployment, ok := strings.CutSuffix(owner.Name, "-"+hash); ok && hash != "" && deployment != "" {
			return "deployment", deployment
		}
	case owner.Kind == "Job" && strings.HasPrefix(owner.APIVersion, "batch/"):
		if cronJob := cronJobSuffix.ReplaceAllString(owner.Name, ""); cronJob != owner.Name && cronJob != "" {
			return "cronjob", cronJob
		}
	}
	return owner.Kind, owner.Name
}
