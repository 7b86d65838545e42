package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"rockpool.dev/tests/bed/pod"
	"rockpool.dev/tests/edge"
)

const (
	namespace    = "conformance"
	suiteImage   = "suite:dev"
	container    = "suite"
	reportsMount = "/reports"
	// hostReports is the directory of the reports on the pod's node.
	hostReports = "/reports"
)

// progressInterval is the time between two lines that say how long a run has taken.
const progressInterval = time.Minute

// prepare creates the namespace of the pods, whose service account may do anything, as the suite
// requires.
func prepare(ctx context.Context, e *edge.Edge) error {
	if err := e.CreateNamespace(ctx, namespace); err != nil {
		return err
	}
	_, err := e.Client().RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: namespace},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "default", Namespace: namespace}},
	}, metav1.CreateOptions{})
	return err
}

// suitePod runs the suite once.
func suitePod(inject bool, command []string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: way(inject), Annotations: map[string]string{
			"rockpool.dev/inject": strconv.FormatBool(inject),
		}},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever,
			SchedulerName: namespace, // there is none of that name: the pod is not for the hollow node
			Containers: []corev1.Container{{
				Name: container, Image: suiteImage, Command: command,
				Env:          []corev1.EnvVar{{Name: "HOME", Value: "/tmp"}}, // kubectl has its cache there
				VolumeMounts: []corev1.VolumeMount{{Name: "reports", MountPath: reportsMount}},
			}},
			Volumes: []corev1.Volume{{Name: "reports", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{
				Path: hostReports, Type: ptr.To(corev1.HostPathDirectoryOrCreate),
			}}}},
		},
	}
}

// way names a run, in the API and in the directory of the reports.
func way(inject bool) string {
	if inject {
		return "sidecar"
	}
	return "direct"
}

// runSuite runs the suite in a pod and returns its results. The reports and the output of all
// containers stay in the directory of the reports.
func runSuite(ctx context.Context, e *edge.Edge, inject bool, o options) (results map[string]result, err error) {
	reports := filepath.Join(o.reports, way(inject))
	if err := errors.Join(os.RemoveAll(reports), os.MkdirAll(reports, 0o755)); err != nil {
		return nil, err
	}
	root, err := os.MkdirTemp("", "rockpool-node-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(root)
	if err := os.Chmod(root, 0o755); err != nil {
		return nil, err
	}
	node, err := e.NewNode(root, nil)
	if err != nil {
		return nil, err
	}
	defer node.Close()
	if !inject {
		node.Links[e.ServiceAddress()] = node.Link
	}
	runner, err := node.Create(ctx, suitePod(inject, o.arguments()))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, runner.Stop()) }()
	started := time.Now()
	waited := await(ctx, runner, way(inject), o.timeout+time.Minute)
	fmt.Fprintf(os.Stderr, "%s: ended after %s; reports and output are in %s\n", way(inject), time.Since(started).Round(time.Second), reports)
	if err := keep(runner, filepath.Join(root, hostReports), reports); err != nil {
		return nil, errors.Join(waited, err)
	}
	if waited != nil {
		return nil, fmt.Errorf("%s: %w", way(inject), waited)
	}
	return readReport(filepath.Join(reports, "ginkgo", "report.json"))
}

// await waits until the suite has ended. It fails if one test fails, so its exit code says nothing.
func await(ctx context.Context, runner *pod.Runner, way string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := runner.WaitDone(ctx)
		ended <- err
	}()
	ticker := time.NewTicker(progressInterval)
	defer ticker.Stop()
	for started := time.Now(); ; {
		select {
		case err := <-ended:
			return err
		case <-ticker.C:
			fmt.Fprintf(os.Stderr, "%s: running for %s\n", way, time.Since(started).Round(time.Second))
		}
	}
}

// keep copies the reports, and writes the output of all containers into files beside them.
func keep(runner *pod.Runner, from, to string) error {
	for _, c := range runner.Statuses() {
		text, err := runner.Logs(c.Name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, c.Name+".log"), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return os.CopyFS(to, os.DirFS(from))
}
