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

// maxSegment bounds the workload's path segment, in bytes. File systems allow 255.
const maxSegment = 200

// cronJobSuffix is what the CronJob controller appends to the name of a Job: the
// scheduled time in minutes since 1970, which has eight digits from 1989 to 2160.
var cronJobSuffix = regexp.MustCompile(`-[0-9]{8}$`)

// cacheDirectory returns the pod's directory below the root of the cache volume:
// namespace/serviceaccount/workload. All three are validated to be single path segments.
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

// workloadSegment names what the pod is a replica of, so that its replacement finds the
// same directory: "kind.name", like "deployment.web". The kind keeps a Deployment and a
// StatefulSet of one name apart; a kind has no dot, so two pairs never give one segment.
//
// The controller of a pod that exists is in its owner references; of a template, it is given.
func workloadSegment(pod *corev1.Pod, controller *metav1.OwnerReference) (string, error) {
	kind, name := "pod", pod.GenerateName
	if owner := cmp.Or(controller, metav1.GetControllerOfNoCopy(pod)); owner != nil {
		kind, name = workloadOf(owner, pod.Labels)
	} else if name != "" {
		// Before the name: at admission it is not yet generated, later it is there, and
		// both must give the same directory.
		name = strings.TrimRight(name, "-.")
	} else {
		name = pod.Name
	}
	kind = strings.ToLower(kind)
	// An owner reference may hold any text: the API server checks only that there is some.
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

// workloadOf looks through the controllers that make a new object for each revision or
// run. Their own owner is not in the pod, but follows from the name.
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
