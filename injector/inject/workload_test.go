package inject

import (
	"maps"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestCacheDirectory(t *testing.T) {
	owned := func(apiVersion, kind, name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{GenerateName: name + "-", OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "ConfigMap", Name: "not-the-controller"},
			{APIVersion: apiVersion, Kind: kind, Name: name, Controller: ptr.To(true)},
		}}
	}
	labelled := func(meta metav1.ObjectMeta, hash string) metav1.ObjectMeta {
		meta.Labels = map[string]string{"pod-template-hash": hash}
		return meta
	}
	with := func(meta metav1.ObjectMeta, label, value string) metav1.ObjectMeta {
		meta.Labels = maps.Clone(meta.Labels)
		metav1.SetMetaDataLabel(&meta, label, value)
		return meta
	}
	rollout := func(meta metav1.ObjectMeta) metav1.ObjectMeta {
		return with(meta, "rollouts-pod-template-hash", "7f9c4bd5d8")
	}
	long := strings.Repeat("a", 253)
	tests := []struct {
		name      string
		namespace string
		account   string
		meta      metav1.ObjectMeta
		want      string
		once      bool // no later pod has the directory
		wantErr   string
	}{
		{name: "a Deployment's pod has the Deployment's directory", meta: labelled(owned("apps/v1", "ReplicaSet", "web-6d4cf56db6"), "6d4cf56db6"), want: "shop/default/deployment.web"},
		{name: "a ReplicaSet without a Deployment keeps its name", meta: owned("apps/v1", "ReplicaSet", "web-2"), want: "shop/default/replicaset.web-2"},
		{name: "a ReplicaSet whose name does not end in the hash keeps its name", meta: labelled(owned("apps/v1", "ReplicaSet", "web"), "6d4cf56db6"), want: "shop/default/replicaset.web"},
		{name: "a ReplicaSet of another API group keeps its name", meta: labelled(owned("example.com/v1", "ReplicaSet", "web-1"), "1"), want: "shop/default/replicaset.web-1"},
		{name: "a StatefulSet of the same name has another directory", meta: owned("apps/v1", "StatefulSet", "web"), want: "shop/default/statefulset.web"},
		{name: "a DaemonSet", meta: owned("apps/v1", "DaemonSet", "agent"), want: "shop/default/daemonset.agent"},
		{name: "the runs of a CronJob share a directory", meta: owned("batch/v1", "Job", "backup-29400960"), want: "shop/default/cronjob.backup"},
		{name: "a Job with a number in its name does not belong to a CronJob", meta: owned("batch/v1", "Job", "migrate-2"), want: "shop/default/job.migrate"},
		{name: "the revisions of an Argo Rollout share a directory", meta: rollout(owned("apps/v1", "ReplicaSet", "web-7f9c4bd5d8")), want: "shop/default/rollout.web"},
		{name: "the runs of a Workflow share a directory", meta: owned("argoproj.io/v1alpha1", "Workflow", "etl-x7k2p"), want: "shop/default/workflow.etl"},
		{name: "a Workflow with a template", meta: with(owned("argoproj.io/v1alpha1", "Workflow", "x7k2p"), "workflows.argoproj.io/workflow-template", "etl"), want: "shop/default/workflowtemplate.etl"},
		{name: "a Workflow of a CronWorkflow", meta: with(owned("argoproj.io/v1alpha1", "Workflow", "etl-1764500000"), "workflows.argoproj.io/cron-workflow", "etl"), want: "shop/default/cronworkflow.etl"},
		{name: "a TaskRun of a pipeline", meta: with(with(owned("tekton.dev/v1", "TaskRun", "ci-run-8d4tq-build"), "tekton.dev/pipeline", "ci"), "tekton.dev/pipelineTask", "build"), want: "shop/default/pipeline.ci.build"},
		{name: "a TaskRun of a pipeline without a name of its own", meta: with(with(with(with(owned("tekton.dev/v1", "TaskRun", "ci-run-8d4tq-build"), "tekton.dev/pipeline", "ci-run-8d4tq"), "tekton.dev/pipelineRun", "ci-run-8d4tq"), "tekton.dev/pipelineTask", "build"), "tekton.dev/task", "go-build"), want: "shop/default/task.go-build"},
		{name: "a TaskRun of a Task", meta: with(owned("tekton.dev/v1", "TaskRun", "build-8d4tq"), "tekton.dev/task", "go-build"), want: "shop/default/task.go-build"},
		{name: "a TaskRun without either", meta: owned("tekton.dev/v1", "TaskRun", "build-8d4tq"), want: "shop/default/taskrun.build"},
		{name: "a controller of any kind, with a generated name", meta: owned("actions.github.com/v1alpha1", "EphemeralRunner", "arc-h4dkv-runner-9zk4w"), want: "shop/default/ephemeralrunner.arc-h4dkv-runner"},
		{name: "a controller of any kind, with a number", meta: owned("example.com/v1", "Database", "orders-2"), want: "shop/default/database.orders-2"},
		{name: "a controller of any kind, with the time of its run", meta: owned("sparkoperator.k8s.io/v1beta2", "SparkApplication", "report-1764538454123456789"), want: "shop/default/sparkapplication.report"},
		{name: "a controller of any kind, named by a time alone", meta: owned("example.com/v1", "Run", "1764538454"), want: "shop/default/run.1764538454"},
		{name: "the driver of a Spark program", meta: metav1.ObjectMeta{Name: "spark-pi-8f3e2a91b7c44d05-driver"}, want: "shop/default/pod.spark-pi-driver"},
		{name: "an executor of a Spark program", meta: owned("v1", "Pod", "spark-pi-8f3e2a91b7c44d05-driver"), want: "shop/default/pod.spark-pi-driver"},
		{name: "a pod of a CI system", meta: metav1.ObjectMeta{Name: "runner-abc-project-1"}, want: "shop/default/pod.runner-abc-project"},
		{name: "the next one", meta: metav1.ObjectMeta{Name: "runner-abc-project-2-concurrent-0-a7c3kx9q"}, want: "shop/default/pod.runner-abc-project-2-concurrent"},
		{name: "a pod with a UUID in its name", meta: metav1.ObjectMeta{Name: "pi-3fa85f64-5717-4562-b3fc-2c963f66afa6-driver"}, want: "shop/default/pod.pi-driver"},
		{name: "a pod with a version in its name", meta: metav1.ObjectMeta{Name: "postgres15"}, want: "shop/default/pod.postgres15"},
		{name: "a pod with words in its name", meta: metav1.ObjectMeta{Name: "web-kafka-v2"}, want: "shop/default/pod.web-kafka-v2"},
		{name: "a controller of any kind", meta: owned("example.com/v1", "Tide", "spring.low"), want: "shop/default/tide.spring.low"},
		{name: "a pod without a controller", meta: metav1.ObjectMeta{Name: "web"}, want: "shop/default/pod.web"},
		{name: "a pod whose name is generated", meta: metav1.ObjectMeta{GenerateName: "web-"}, want: "shop/default/pod.web"},
		{name: "the same pod after its name was generated", meta: metav1.ObjectMeta{GenerateName: "web-", Name: "web-x7k2p"}, want: "shop/default/pod.web"},
		{name: "an owner that does not control the pod does not count", meta: metav1.ObjectMeta{Name: "web", OwnerReferences: []metav1.OwnerReference{{Kind: "Node", Name: "n"}}}, want: "shop/default/pod.web"},
		{name: "the service account is part of the path", account: "robot.v2", meta: metav1.ObjectMeta{Name: "web"}, want: "shop/robot.v2/pod.web"},
		{name: "a name too long for a path segment is truncated, and a digest keeps it unique", meta: owned("apps/v1", "StatefulSet", long), want: "shop/default/statefulset." + strings.Repeat("a", 171) + ".d80664c055223a83"},

		{name: "a namespace that is not a DNS label is refused", namespace: "..", meta: metav1.ObjectMeta{Name: "web"}, wantErr: `namespace ".."`},
		{name: "a missing namespace is refused", namespace: " ", meta: metav1.ObjectMeta{Name: "web"}, wantErr: `namespace " "`},
		{name: "a service account with a slash is refused", account: "a/b", meta: metav1.ObjectMeta{Name: "web"}, wantErr: `spec.serviceAccountName "a/b"`},
		{name: "a pod that is named by a UUID alone has no stable name", meta: metav1.ObjectMeta{Name: "3fa85f64-5717-4562-b3fc-2c963f66afa6"}, want: "shop/default/pod.3fa85f64-5717-4562-b3fc-2c963f66afa6", once: true},
		{name: "a Job that is a number alone has no stable name", meta: owned("batch/v1", "Job", "4711"), want: "shop/default/job.4711", once: true},
		{name: "an owner that leads out of the directory is refused", meta: owned("example.com/v1", "Tide", "../../etc"), wantErr: `the name "../../etc"`},
		{name: "an owner kind with a dot is refused", meta: owned("example.com/v1", "a.b", "c"), wantErr: `the kind "a.b"`},
		{name: "a pod without any name is refused", meta: metav1.ObjectMeta{}, wantErr: `the name ""`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			namespace := "shop"
			if test.namespace != "" {
				namespace = test.namespace
			}
			pod := &corev1.Pod{ObjectMeta: test.meta, Spec: corev1.PodSpec{ServiceAccountName: test.account}}
			got, stable, err := cacheDirectory(pod, &Facts{Namespace: namespace})
			if test.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantErr) {
					t.Fatalf("got %q, error %v; want an error with %s", got, err, test.wantErr)
				}
				return
			}
			if err != nil || got != test.want || stable == test.once {
				t.Errorf("got %q, stable %v, %v; want %q", got, stable, err, test.want)
			}
		})
	}
}

func TestLongNamesWithACommonStartGetDifferentSegments(t *testing.T) {
	segment := func(name string) string {
		s, _, err := workloadSegment(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(s) > maxSegment {
			t.Errorf("segment of %d bytes", len(s))
		}
		return s
	}
	common := strings.Repeat("a", 250)
	if segment(common+"b") == segment(common+"c") {
		t.Error("two workloads share a directory")
	}
}
