package zoo

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// namespace is where the objects and the programs are.
const namespace = "zoo"

// The values of the objects: before the outage, and after a change in the cloud that the node does
// not see before the link is back.
const (
	before = "hello"
	after  = "changed"
)

// addresses are those of the Service pool, by value.
var addresses = map[string]string{before: "192.0.2.1", after: "192.0.2.2"}

var (
	//go:embed crds.yaml
	crds string
	//go:embed world.yaml
	world string
)

// set applies the objects that programs are asked for, with a value. It does not use the link.
func (b Bed) set(ctx context.Context, value string) error {
	objects := strings.NewReplacer("VALUE", value, "ADDRESS", addresses[value], "IMAGE", b.Image).Replace(world)
	return b.kubectl(ctx, objects, "apply", "--server-side", "--force-conflicts", "-f", "-")
}

// define defines the custom resources of programs.
func (b Bed) define(ctx context.Context) error {
	if err := b.kubectl(ctx, crds, "apply", "--server-side", "-f", "-"); err != nil {
		return err
	}
	return b.kubectl(ctx, crds, "wait", "--for=condition=Established", "--timeout=60s", "-f", "-")
}

// kubectl runs kubectl as the administrator.
func (b Bed) kubectl(ctx context.Context, input string, args ...string) error {
	cmd := exec.CommandContext(ctx, b.Tools().Kubectl, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+b.Kubeconfig())
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w\n%s", args[0], err, out)
	}
	return nil
}

// deploy creates a program's service account, rights, files and Deployment.
func (b Bed) deploy(ctx context.Context, p Program, i Installed) error {
	meta := metav1.ObjectMeta{Name: p.Name, Namespace: namespace}
	global := metav1.ObjectMeta{Name: "zoo-" + p.Name}
	core, rbac := b.Client().CoreV1(), b.Client().RbacV1()
	if _, err := core.ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{}); err != nil {
		return err
	}
	if _, err := rbac.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: global, Rules: p.rules}, metav1.CreateOptions{}); err != nil {
		return err
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: global,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: global.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: p.Name, Namespace: namespace}},
	}
	if _, err := rbac.ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		return err
	}
	pod := p.pod(b, i)
	pod.ServiceAccountName = p.Name
	if len(p.files) > 0 {
		files := &corev1.ConfigMap{ObjectMeta: meta, Data: p.files}
		if _, err := core.ConfigMaps(namespace).Create(ctx, files, metav1.CreateOptions{}); err != nil {
			return err
		}
		pod.Volumes = append(pod.Volumes, corev1.Volume{Name: "files", VolumeSource: corev1.VolumeSource{
			ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: p.Name}}}})
		for i := range pod.Containers {
			c := &pod.Containers[i]
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "files", MountPath: filesPath, ReadOnly: true})
		}
	}
	// However long the link is cut: the pods stay.
	pod.Tolerations = []corev1.Toleration{{Effect: corev1.TaintEffectNoExecute, Operator: corev1.TolerationOpExists}}
	labels := map[string]string{"app": p.Name}
	deployment := &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: map[string]string{"rockpool.dev/inject": "true"}},
			Spec:       pod,
		},
	}}
	_, err := b.Client().AppsV1().Deployments(namespace).Create(ctx, deployment, metav1.CreateOptions{})
	return err
}
