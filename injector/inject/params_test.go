package inject

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestValidate(t *testing.T) {
	tests := []struct {
		name     string
		validate func(string) error
		value    string
		wantErr  string // "" when the value is valid
	}{
		{"a host", ValidateUpstreams, "https://api.example.com", ""},
		{"host, port and slash", ValidateUpstreams, "https://192.0.2.1:6443/", ""},
		{"several, one of IPv6", ValidateUpstreams, "https://a , https://[2001:db8::1]:6443", ""},
		{"an upstream with a name and a CA", ValidateUpstreams, "https://192.0.2.1:6443;tls-server-name=kubernetes;ca-file=/etc/edge/ca.crt", ""},
		{"a plain-text upstream", ValidateUpstreams, "http://api.example.com", "is not https"},
		{"nothing", ValidateUpstreams, "", "no URL is given"},
		{"only commas", ValidateUpstreams, " , ", "no URL is given"},
		{"a path", ValidateUpstreams, "https://a/k8s/clusters/c-1", "has a path"},
		{"a CA of an upstream that is relative", ValidateUpstreams, "https://a;ca-file=x", "is not an absolute path"},
		{"a user", ValidateUpstreams, "https://user:secret@a", "user or password"},
		{"an invalid host", ValidateUpstreams, "https://a_b", "neither an IP address nor a DNS name"},
		{"a field of an upstream twice", ValidateUpstreams, "https://a;ca-file=/a;ca-file=/b", "is given twice"},
		{"one address with two CAs", ValidateUpstreams, "https://a,https://a;ca-file=/b", "is given before with another"},

		{"a short image", ValidateImage, "rockpool", ""},
		{"an image with everything", ValidateImage, "Registry.example.com:5000/a/b_c/rock-pool:v1.0@sha256:" + strings.Repeat("a", 64), ""},
		{"no image", ValidateImage, "", "no image is named"},
		{"an image in capitals", ValidateImage, "Rockpool:v1", "is not an image reference"},
		{"an image with a variable", ValidateImage, "rockpool:$(TAG)", "is not an image reference"},
		{"an image with an empty tag", ValidateImage, "rockpool:", "is not an image reference"},
		{"an endless image", ValidateImage, strings.Repeat("a", 769), "is not an image reference"},

		{"the default host path", ValidateCacheHostPath, DefaultCacheHostPath, ""},
		{"the root of the node", ValidateCacheHostPath, "/", "is not an absolute path"},
		{"a relative host path", ValidateCacheHostPath, "var/lib", "is not an absolute path"},
		{"a host path with two dots", ValidateCacheHostPath, "/var/../etc", "is not an absolute path"},
		{"no host path", ValidateCacheHostPath, "", "is not an absolute path"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := test.validate(test.value)
			if test.wantErr == "" && err != nil || test.wantErr != "" && (err == nil || !strings.Contains(err.Error(), test.wantErr)) {
				t.Errorf("%q: got %v, want %q", test.value, err, test.wantErr)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
}

// list makes resources of "cpu", "memory"; an empty string means none.
func list(cpu, memory string) corev1.ResourceList {
	l := corev1.ResourceList{}
	if cpu != "" {
		l[corev1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		l[corev1.ResourceMemory] = resource.MustParse(memory)
	}
	return l
}

func TestValidateResources(t *testing.T) {
	tests := []struct {
		name             string
		requests, limits corev1.ResourceList
		wantErr          string
	}{
		{"nothing", nil, nil, ""},
		{"a request and no limit", list("1", ""), nil, ""},
		{"equal in other units", list("1000m", ""), list("1", ""), ""},
		{"a request above its limit", list("", "2Gi"), list("", "1Gi"), "memory: the request 2Gi is above the limit 1Gi"},
		{"a negative request", list("-1", ""), nil, "cpu: a negative quantity"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := ValidateResources(corev1.ResourceRequirements{Requests: test.requests, Limits: test.limits})
			if test.wantErr == "" && err != nil || test.wantErr != "" && (err == nil || err.Error() != test.wantErr) {
				t.Errorf("got %v, want %q", err, test.wantErr)
			}
		})
	}
}

func TestSidecarResources(t *testing.T) {
	with := func(requests, limits corev1.ResourceList) corev1.ResourceRequirements {
		return corev1.ResourceRequirements{Requests: requests, Limits: limits}
	}
	full := with(nil, list("1", "1Gi"))
	tests := []struct {
		name       string
		configured corev1.ResourceRequirements
		pod        []corev1.ResourceRequirements
		podLevel   *corev1.ResourceRequirements
		want       corev1.ResourceRequirements
	}{
		{name: "a pod without resources gets what is configured", configured: with(list("20m", "48Mi"), list("", "192Mi")),
			pod: []corev1.ResourceRequirements{{}}, want: with(list("20m", "48Mi"), list("", "192Mi"))},
		{name: "one container that is not Guaranteed is enough", configured: with(list("20m", "48Mi"), list("", "192Mi")),
			pod: []corev1.ResourceRequirements{full, with(list("1", "1Gi"), list("2", "1Gi"))}, want: with(list("20m", "48Mi"), list("", "192Mi"))},
		{name: "Guaranteed: limits become requests, CPU has a minimum", configured: with(list("20m", "48Mi"), list("", "192Mi")),
			pod: []corev1.ResourceRequirements{full, with(list("1", "1Gi"), list("1000m", "1024Mi"))}, want: with(list("100m", "192Mi"), list("100m", "192Mi"))},
		{name: "Guaranteed: a configured CPU limit overrides the minimum", configured: with(list("20m", "48Mi"), list("50m", "192Mi")),
			pod: []corev1.ResourceRequirements{full}, want: with(list("50m", "192Mi"), list("50m", "192Mi"))},
		{name: "Guaranteed: without a limit the request becomes the limit", configured: with(list("200m", "48Mi"), nil),
			pod: []corev1.ResourceRequirements{full}, want: with(list("200m", "48Mi"), list("200m", "48Mi"))},
		{name: "Guaranteed, but no memory configured: nothing is invented", configured: with(list("20m", ""), nil),
			pod: []corev1.ResourceRequirements{full}, want: with(list("20m", ""), nil)},
		{name: "resources at pod level leave none for our containers", configured: with(list("20m", "48Mi"), nil),
			pod: []corev1.ResourceRequirements{full}, podLevel: &full, want: corev1.ResourceRequirements{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			spec := &corev1.PodSpec{Resources: test.podLevel, InitContainers: []corev1.Container{{Name: ContainerSidecar}}}
			for _, r := range test.pod {
				spec.Containers = append(spec.Containers, corev1.Container{Name: "app", Resources: r})
			}
			if diff := cmp.Diff(test.want, sidecarResources(spec, test.configured)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTheSELinuxTypeIsForCachesOnTheNode(t *testing.T) {
	for volume, want := range map[CacheVolume]string{CacheHostPath: "spc_t", CacheEmptyDir: ""} {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "web", Annotations: map[string]string{AnnotationCacheVolume: string(volume)}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web"}}},
		}
		patched, _ := Inject(pod, Facts{Namespace: "shop", Asked: true, Template: true},
			Params{Image: "rockpool:v1", CacheHostPath: DefaultCacheHostPath, SELinuxType: "spc_t"})
		for _, c := range patched.Spec.InitContainers {
			got := ""
			if c.SecurityContext.SELinuxOptions != nil {
				got = c.SecurityContext.SELinuxOptions.Type
			}
			if got != want {
				t.Errorf("%s: %s has the type %q, want %q", volume, c.Name, got, want)
			}
		}
		if patched.Spec.Containers[0].SecurityContext != nil {
			t.Error("the application has a security context")
		}
	}
}

func TestEveryReasonHasOneMessage(t *testing.T) {
	seen := map[string]Reason{}
	for reason, message := range messages {
		if message == "" || reason.Message() != message {
			t.Errorf("%s has no message", reason)
		}
		if other, ok := seen[message]; ok {
			t.Errorf("%s and %s have the same message", reason, other)
		}
		seen[message] = reason
	}
}

// TestPodsInTheNodesNetworkDoNotMeet compares two pods of a rolling update as the scheduler does: a
// host port is taken if protocol, port and address are.
func TestPodsInTheNodesNetworkDoNotMeet(t *testing.T) {
	taken := map[corev1.ContainerPort]bool{}
	for _, review := range []string{"a", "b", "c"} {
		pod := podWithAccount(map[string]string{AnnotationPort: "20268"})
		pod.Spec.HostNetwork = true
		patched, result := Inject(pod, Facts{Namespace: "shop", Review: review}, Params{Image: "rockpool:v1", CacheHostPath: DefaultCacheHostPath})
		if result.Outcome != Injected || len(result.Notices) > 0 {
			t.Fatal(result)
		}
		for _, c := range patched.Spec.InitContainers {
			for _, p := range c.Ports {
				if taken[p] || p.HostPort != p.ContainerPort || p.HostIP == "" {
					t.Errorf("port %+v of review %s", p, review)
				}
				taken[p] = true
			}
		}
		sidecar := addressOf(&patched.Spec)
		if ip := sidecar.Addr(); !ip.IsLoopback() || ip.As4()[1] == 0 || sidecar.Port() != 20268 {
			t.Errorf("the sidecar is at %s", sidecar)
		}
	}
	if len(taken) != 6 {
		t.Errorf("%d ports: %v", len(taken), taken)
	}

	pod := podWithAccount(map[string]string{AnnotationPort: "20268"})
	pod.Spec.HostNetwork = true
	_, result := Inject(pod, Facts{Namespace: "shop", Template: true, Controller: &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"}},
		Params{Image: "rockpool:v1", CacheHostPath: DefaultCacheHostPath})
	if len(result.Notices) != 1 || result.Notices[0].Reason != ReasonHostPorts {
		t.Errorf("a template, whose pods share an address, gets the notices %v", result.Notices)
	}
}
