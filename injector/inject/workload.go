package inject

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// maxSegment limits the workload's path segment, in bytes. File systems allow 255.
const maxSegment = 200

// cacheDirectory returns the pod's directory below the root of the cache volume:
// namespace/serviceaccount/workload. It checks that each is a single path segment. The directory is
// stable if later pods of the same workload have it, too.
func cacheDirectory(pod *corev1.Pod, facts *Facts) (directory string, stable bool, err error) {
	namespace := cmp.Or(facts.Namespace, pod.Namespace)
	if namespace == "" {
		return "", false, errors.New("the namespace is not known; set metadata.namespace, or for the command --namespace")
	}
	if errs := validation.IsDNS1123Label(namespace); len(errs) > 0 {
		return "", false, fmt.Errorf("namespace %q is not a DNS label", namespace)
	}
	// The API server copies one of the two fields to the other; a manifest may have either.
	account := cmp.Or(pod.Spec.ServiceAccountName, pod.Spec.DeprecatedServiceAccount, "default")
	if errs := validation.IsDNS1123Subdomain(account); len(errs) > 0 {
		return "", false, fmt.Errorf("spec.serviceAccountName %q is not a DNS name", account)
	}
	workload, stable, err := workloadSegment(pod, facts.Controller)
	if err != nil {
		return "", false, err
	}
	return namespace + "/" + account + "/" + workload, stable, nil
}

// workloadSegment names the workload of the pod, so that a replacement pod finds the same
// directory: "kind.name", like "deployment.web". The kind distinguishes a Deployment from a
// StatefulSet of the same name. A kind has no dot, so segments are unique.
//
// An existing pod names its controller in its owner references; for a template it is given.
func workloadSegment(pod *corev1.Pod, controller *metav1.OwnerReference) (segment string, stable bool, err error) {
	// generateName has precedence over the name, which is generated after admission: the
	// directory must be the same before and after.
	kind, given := "pod", strings.TrimRight(pod.GenerateName, "-.")
	if given == "" {
		given = pod.Name
	}
	name := withoutRun(given)
	if owner := cmp.Or(controller, metav1.GetControllerOfNoCopy(pod)); owner != nil {
		given = owner.Name
		kind, name = workloadOf(owner, pod.Labels)
	}
	stable = name != ""
	name = cmp.Or(name, given)
	kind = strings.ToLower(kind)
	// An owner reference may have any text: the API server only checks that it is not empty.
	if errs := validation.IsDNS1123Label(kind); len(errs) > 0 {
		return "", false, fmt.Errorf("the kind %q of the controller in metadata.ownerReferences is not a DNS label", kind)
	}
	if errs := validation.IsDNS1123Subdomain(name); len(errs) > 0 {
		return "", false, fmt.Errorf("the name %q of the %s is not a DNS name", name, kind)
	}
	segment = kind + "." + name
	if len(segment) > maxSegment {
		digest := sha256.Sum256([]byte(segment))
		suffix := "." + hex.EncodeToString(digest[:8])
		segment = segment[:maxSegment-len(suffix)] + suffix
	}
	return segment, stable, nil
}

// workloadOf returns the workload behind a controller that creates a new object for each
// revision or run. The labels of the pod, or the controller's name, tell it. The name is empty if
// the controller has no name that its next run shares.
func workloadOf(owner *metav1.OwnerReference, podLabels map[string]string) (kind, name string) {
	group, _, _ := strings.Cut(owner.APIVersion, "/")
	switch group + "/" + owner.Kind {
	case "apps/ReplicaSet":
		for _, by := range []struct{ label, kind string }{
			{"rollouts-pod-template-hash", "rollout"}, // of Argo Rollouts
			{"pod-template-hash", "deployment"},
		} {
			hash := podLabels[by.label]
			if workload, ok := strings.CutSuffix(owner.Name, "-"+hash); ok && hash != "" && workload != "" {
				return by.kind, workload
			}
		}
		return owner.Kind, owner.Name
	case "batch/Job":
		if cronJob := cronJobSuffix.ReplaceAllString(owner.Name, ""); cronJob != owner.Name && cronJob != "" {
			return "cronjob", cronJob
		}
		return owner.Kind, withoutRun(owner.Name)
	case "argoproj.io/Workflow":
		for _, by := range []struct{ label, kind string }{
			{"workflows.argoproj.io/cron-workflow", "cronworkflow"},
			{"workflows.argoproj.io/workflow-template", "workflowtemplate"},
			{"workflows.argoproj.io/cluster-workflow-template", "clusterworkflowtemplate"},
		} {
			if template := podLabels[by.label]; template != "" {
				return by.kind, template
			}
		}
		return owner.Kind, withoutRun(owner.Name)
	case "tekton.dev/TaskRun":
		if pipeline, task := podLabels["tekton.dev/pipeline"], podLabels["tekton.dev/pipelineTask"]; pipeline != "" && task != "" && pipeline != podLabels["tekton.dev/pipelineRun"] {
			return "pipeline", pipeline + "." + task
		}
		if task := cmp.Or(podLabels["tekton.dev/task"], podLabels["tekton.dev/clusterTask"]); task != "" {
			return "task", task
		}
		return owner.Kind, withoutRun(owner.Name)
	case "v1/Pod", "/Pod": // of Spark, a driver controls its executors
		return owner.Kind, withoutRun(owner.Name)
	case "apps/Deployment", "apps/StatefulSet", "apps/DaemonSet", "/ReplicationController", "v1/ReplicationController", "batch/CronJob":
		return owner.Kind, owner.Name
	}
	// A controller of any other kind: a person has named it, or the API server from a generateName, or
	// another controller by the time of a run.
	name = timeSuffix.ReplaceAllString(generatedSuffix.ReplaceAllString(owner.Name, ""), "")
	return owner.Kind, cmp.Or(name, owner.Name)
}
