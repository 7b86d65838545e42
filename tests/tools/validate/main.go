// Command validate checks objects by the API server's own rules, without an API server: the pods in
// pods, Deployments, DaemonSets, StatefulSets, ReplicaSets, Jobs and CronJobs. It reads JSON objects
// from standard input, sets their defaults, writes a line for each problem, and exits with 1 if there
// is any. It is in this module because only this one has k8s.io/kubernetes.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/batch"
	_ "k8s.io/kubernetes/pkg/apis/batch/install"
	batchvalidation "k8s.io/kubernetes/pkg/apis/batch/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/capabilities"
)

func main() {
	// As on most clusters (--allow-privileged).
	capabilities.Initialize(capabilities.Capabilities{AllowPrivileged: true})
	decoder := json.NewDecoder(os.Stdin)
	failed := false
	for {
		var raw json.RawMessage
		err := decoder.Decode(&raw)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = check(raw)
		}
		if err != nil {
			failed = true
			fmt.Println(err)
		}
		if raw == nil {
			break // not JSON
		}
	}
	if failed {
		os.Exit(1)
	}
}

// check returns what is wrong with an object.
func check(raw []byte) error {
	object, _, err := legacyscheme.Codecs.UniversalDeserializer().Decode(raw, nil, nil)
	if err != nil {
		return err
	}
	legacyscheme.Scheme.Default(object)
	internal, err := legacyscheme.Scheme.ConvertToVersion(object, runtime.InternalGroupVersioner)
	if err != nil {
		return err
	}
	var problems field.ErrorList
	var name string
	switch o := internal.(type) {
	case *core.Pod:
		if o.Spec.ServiceAccountName == "" { // of the ServiceAccount admission plugin
			o.Spec.ServiceAccountName = "default"
		}
		name, problems = "Pod "+o.Name, corevalidation.ValidatePodCreate(o, pod.GetValidationOptionsFromPodSpecAndMeta(&o.Spec, nil, &o.ObjectMeta, nil))
	case *apps.Deployment:
		name, problems = "Deployment "+o.Name, appsvalidation.ValidateDeployment(o, pod.GetValidationOptionsFromPodTemplate(&o.Spec.Template, nil))
	case *apps.DaemonSet:
		name, problems = "DaemonSet "+o.Name, appsvalidation.ValidateDaemonSet(o, pod.GetValidationOptionsFromPodTemplate(&o.Spec.Template, nil))
	case *apps.StatefulSet:
		name, problems = "StatefulSet "+o.Name, appsvalidation.ValidateStatefulSet(o, pod.GetValidationOptionsFromPodTemplate(&o.Spec.Template, nil))
	case *batch.Job:
		// As the strategy of the API server does before it validates.
		if o.UID == "" {
			o.UID = "00000000-0000-4000-8000-000000000000"
		}
		if o.Spec.Selector == nil {
			o.Spec.Template.Labels = map[string]string{"batch.kubernetes.io/controller-uid": string(o.UID), "controller-uid": string(o.UID),
				"batch.kubernetes.io/job-name": o.Name, "job-name": o.Name}
			o.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"batch.kubernetes.io/controller-uid": string(o.UID)}}
		}
		name, problems = "Job "+o.Name, batchvalidation.ValidateJob(o, batchvalidation.JobValidationOptions{RequirePrefixedLabels: true, PodValidationOptions: pod.GetValidationOptionsFromPodTemplate(&o.Spec.Template, nil)})
	case *batch.CronJob:
		name, problems = "CronJob "+o.Name, batchvalidation.ValidateCronJobCreate(o, pod.GetValidationOptionsFromPodTemplate(&o.Spec.JobTemplate.Spec.Template, nil))
	default:
		return fmt.Errorf("%T has no pods", object)
	}
	if len(problems) > 0 {
		return fmt.Errorf("%s: %w", name, problems.ToAggregate())
	}
	return nil
}
