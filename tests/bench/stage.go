package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"rockpool.dev/tests/bed/cluster"
)

// Namespaces, by what is in them.
const (
	smallNamespace = "small" // the ConfigMap of 1 KiB
	watchNamespace = "watch" // ConfigMaps that change
	someNamespace  = "some"  // 2,000 pods
	manyNamespace  = "many"  // 10,000 pods
	// slicesNamespace has 10,000 EndpointSlices, and is read by the case filters alone.
	slicesNamespace = "slices"
	// changingNamespace has EndpointSlices that change.
	changingNamespace = "changing"
	someObjects       = 2000
	manyObjects       = 10000
	creators          = 16
)

// stage is the environment of all cases.
type stage struct {
	plane     *cluster.ControlPlane
	admin     kubernetes.Interface // writes protobuf, which costs little
	directory string
	binary    string
	account   string // a service-account directory, as from a kubelet
	token     string
	made      map[string]bool // namespaces that have their objects
}

func newStage(ctx context.Context, o options) (s *stage, err error) {
	s = &stage{binary: o.sidecar, made: map[string]bool{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	if s.directory, err = os.MkdirTemp("", "rockpool-bench-"); err != nil {
		return s, err
	}
	if s.binary == "" {
		if s.binary, err = buildSidecar(ctx, s.directory); err != nil {
			return s, err
		}
	}
	if s.plane, err = cluster.Start(ctx, cluster.Options{}); err != nil {
		return s, err
	}
	config := s.plane.Config()
	config.ContentType = "application/vnd.kubernetes.protobuf"
	if s.admin, err = kubernetes.NewForConfig(config); err != nil {
		return s, err
	}
	for _, namespace := range []string{smallNamespace, watchNamespace, someNamespace, manyNamespace, slicesNamespace, changingNamespace} {
		if err := s.plane.CreateNamespace(ctx, namespace); err != nil {
			return s, err
		}
	}
	if err := s.allow(ctx); err != nil {
		return s, err
	}
	if err := s.identity(ctx); err != nil {
		return s, err
	}
	small := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "small"}, Data: map[string]string{"value": strings.Repeat("v", 640)}}
	_, err = s.admin.CoreV1().ConfigMaps(smallNamespace).Create(ctx, small, metav1.CreateOptions{})
	return s, err
}

// buildSidecar builds the sidecar of this module into a directory, and returns its path.
func buildSidecar(ctx context.Context, directory string) (path string, err error) {
	path = filepath.Join(directory, "rockpool-sidecar")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "rockpool.dev/sidecar")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build the sidecar: %w", err)
	}
	return path, nil
}

// allow gives the service account read permission.
func (s *stage) allow(ctx context.Context) error {
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "bench"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps", "pods", "services", "endpoints", "secrets"}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: []string{"get", "list", "watch"}},
	}}
	if _, err := s.admin.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return err
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "bench"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "bench"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "default", Namespace: smallNamespace}},
	}
	_, err := s.admin.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{})
	return err
}

// identity requests a token and creates the service-account directory.
func (s *stage) identity(ctx context.Context) error {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](7200)}}
	got, err := s.admin.CoreV1().ServiceAccounts(smallNamespace).CreateToken(ctx, "default", request, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	s.token, s.account = got.Status.Token, filepath.Join(s.directory, "account")
	if err := os.Mkdir(s.account, 0o700); err != nil {
		return err
	}
	for name, content := range map[string]string{"token": s.token, "ca.crt": string(s.plane.CA()), "namespace": smallNamespace} {
		if err := os.WriteFile(filepath.Join(s.account, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// pods creates n pods in a namespace, once.
func (s *stage) pods(ctx context.Context, namespace string, n int) error {
	if s.made[namespace] {
		return nil
	}
	progress("creating %d pods", n)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(creators)
	for i := range n {
		group.Go(func() error {
			_, err := s.admin.CoreV1().Pods(namespace).Create(ctx, pod(i), metav1.CreateOptions{})
			return err
		})
	}
	s.made[namespace] = true
	return group.Wait()
}

// pod has the size of a typical pod, about 3 KiB in JSON.
func pod(i int) *corev1.Pod {
	app := fmt.Sprintf("app-%d", i%50)
	limits := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi")}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:        fmt.Sprintf("%s-%05d", app, i),
			Labels:      map[string]string{"app.kubernetes.io/name": app, "app.kubernetes.io/part-of": "bench", "tier": "edge"},
			Annotations: map[string]string{"example.com/checksum": strings.Repeat("0123456789abcdef", 4)},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "app", Image: "registry.example.com/shop/" + app + ":v1.2.3", Args: []string{"serve", "--listen=:8080"},
			Env: []corev1.EnvVar{
				{Name: "MODE", Value: "production"}, {Name: "INDEX", Value: fmt.Sprint(i)},
				{Name: "POD_NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
			},
			Ports:          []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
			Resources:      corev1.ResourceRequirements{Requests: limits, Limits: limits},
			ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/readyz", Port: intstr.FromString("http")}}},
		}}},
	}
}

// stop ends everything.
func (s *stage) stop() (err error) {
	if s.plane != nil {
		err = s.plane.Stop()
	}
	if s.directory != "" {
		err = errors.Join(err, os.RemoveAll(s.directory))
	}
	return err
}
