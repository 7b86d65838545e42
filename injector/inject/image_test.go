package inject

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestImagesWithoutAVersion(t *testing.T) {
	digest := "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for image, want := range map[string]bool{
		"rockpool": true, "rockpool:latest": true, "registry.example.com:5000/rockpool": true, "registry.example.com:5000/rockpool:latest": true,
		"rockpool:v1": false, "registry.example.com:5000/rockpool:v1": false, "rockpool" + digest: false, "rockpool:latest" + digest: false,
	} {
		if err := ValidateImage(image); err != nil {
			t.Error(err)
		}
		if got := floatingImage(image); got != want {
			t.Errorf("%s: floating is %v", image, got)
		}
	}
}

func TestThePolicyAndTheSecretsOfTheImage(t *testing.T) {
	for name, test := range map[string]struct {
		params      Params
		template    bool
		own         []string
		policy      corev1.PullPolicy
		secrets     []string
		wantNotices []Reason
	}{
		"by default the node keeps the image":         {policy: corev1.PullIfNotPresent},
		"an image without a tag is kept, too":         {params: Params{Image: "rockpool"}, policy: corev1.PullIfNotPresent, wantNotices: []Reason{ReasonFloatingImage}},
		"a cluster may ask for Always, and is warned": {params: Params{ImagePullPolicy: corev1.PullAlways}, policy: corev1.PullAlways, wantNotices: []Reason{ReasonPullAlways}},
		"a cluster may forbid to pull":                {params: Params{ImagePullPolicy: corev1.PullNever}, policy: corev1.PullNever},
		"secrets follow those of the pod": {
			params: Params{ImagePullSecrets: []string{"edge", "mirror"}}, own: []string{"mine", "edge"},
			policy: corev1.PullIfNotPresent, secrets: []string{"mine", "edge", "mirror"},
		},
		"a template without any would lose those of its ServiceAccount": {
			params: Params{ImagePullSecrets: []string{"edge"}}, template: true,
			policy: corev1.PullIfNotPresent, secrets: []string{"edge"}, wantNotices: []Reason{ReasonPullSecrets},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if test.params.Image == "" {
				test.params.Image = "rockpool:v1"
			}
			test.params.CacheHostPath = DefaultCacheHostPath
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: "web"},
				Spec:       corev1.PodSpec{ServiceAccountName: "default", Containers: []corev1.Container{{Name: "web", Image: "web"}}},
			}
			for _, name := range test.own {
				pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
			}
			facts := Facts{Namespace: "shop", Asked: true, Template: true}
			if !test.template {
				mountAccount(&pod.Spec)
				facts.Template = false
			}
			patched, result := Inject(pod, facts, test.params)
			if result.Outcome != Injected {
				t.Fatalf("%+v", result)
			}
			for _, c := range patched.Spec.InitContainers {
				if c.ImagePullPolicy != test.policy {
					t.Errorf("%s: the policy is %s", c.Name, c.ImagePullPolicy)
				}
			}
			if policy := patched.Spec.Containers[0].ImagePullPolicy; policy != "" {
				t.Errorf("the application's policy is %s", policy)
			}
			var secrets []string
			for _, s := range patched.Spec.ImagePullSecrets {
				secrets = append(secrets, s.Name)
			}
			if diff := cmp.Diff(test.secrets, secrets); diff != "" {
				t.Errorf("secrets (-want +got):\n%s", diff)
			}
			var got []Reason
			for _, n := range result.Notices {
				got = append(got, n.Reason)
			}
			if diff := cmp.Diff(test.wantNotices, got); diff != "" {
				t.Errorf("notices (-want +got):\n%s", diff)
			}
			restored, _ := Uninject(patched)
			if diff := cmp.Diff(test.own, func() (names []string) {
				for _, s := range restored.Spec.ImagePullSecrets {
					names = append(names, s.Name)
				}
				return names
			}()); diff != "" {
				t.Errorf("after Uninject (-before +after):\n%s", diff)
			}
		})
	}
}

func TestValidatePullPolicyAndSecrets(t *testing.T) {
	for _, policy := range []corev1.PullPolicy{"", "ifnotpresent", "Sometimes"} {
		if ValidatePullPolicy(policy) == nil {
			t.Errorf("%q is accepted", policy)
		}
	}
	for _, names := range [][]string{{""}, {"a", "B"}, {"a/b"}} {
		if ValidatePullSecrets(names) == nil {
			t.Errorf("%q is accepted", names)
		}
	}
}

func TestCanariesGetAnotherImage(t *testing.T) {
	params := Params{Image: "rockpool:v1", CanaryImage: "rockpool:v2", CanaryPercent: 20}
	if got := params.imageFor(&Facts{NamespaceLabels: map[string]string{LabelChannel: ChannelCanary}}); got != "rockpool:v2" {
		t.Errorf("in a namespace with the label: %s", got)
	}
	if got := params.imageFor(&Facts{NamespaceLabels: map[string]string{LabelChannel: "stable"}}); got != "rockpool:v1" {
		t.Errorf("in a namespace with another label: %s", got)
	}
	count := func(params Params) (canaries int) {
		for i := range 10_000 {
			if params.imageFor(&Facts{Review: fmt.Sprintf("5f1c2f6e-0000-4000-8000-%012d", i)}) == "rockpool:v2" {
				canaries++
			}
		}
		return canaries
	}
	for percent, want := range map[int][2]int{0: {0, 0}, 20: {1800, 2200}, 100: {10_000, 10_000}} {
		params.CanaryPercent = percent
		if got := count(params); got < want[0] || got > want[1] {
			t.Errorf("%d%%: %d of 10,000", percent, got)
		}
	}
	params.CanaryImage = ""
	if got := count(params); got != 0 {
		t.Errorf("%d canaries without an image for them", got)
	}
}
