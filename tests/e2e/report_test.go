package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// linkToCloud is the type of the condition.
const linkToCloud = "rockpool.dev/LinkToCloud"

// manifest reads an object of the component report.
func manifest[T any](t *testing.T, name string) *T {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("../../manifests/components/report", name))
	if err != nil {
		t.Fatal(err)
	}
	object := new(T)
	if err := yaml.UnmarshalStrict(raw, object); err != nil {
		t.Fatal(err)
	}
	return object
}

// installReports makes the role and the policy of manifests/components/report, as an administrator does.
func (s *site) installReports() {
	s.t.Helper()
	admission := s.cluster.Client().AdmissionregistrationV1()
	_, err := s.cluster.Client().RbacV1().ClusterRoles().Create(s.ctx, manifest[rbacv1.ClusterRole](s.t, "clusterrole.yaml"), metav1.CreateOptions{})
	s.must(err)
	_, err = admission.ValidatingAdmissionPolicies().Create(s.ctx, manifest[admissionregistrationv1.ValidatingAdmissionPolicy](s.t, "policy.yaml"), metav1.CreateOptions{})
	s.must(err)
	_, err = admission.ValidatingAdmissionPolicyBindings().Create(s.ctx, manifest[admissionregistrationv1.ValidatingAdmissionPolicyBinding](s.t, "policybinding.yaml"), metav1.CreateOptions{})
	s.must(err)
}

// mayReport binds the role to the service account of the site's pods.
func (s *site) mayReport() {
	s.t.Helper()
	_, err := s.cluster.Client().RbacV1().RoleBindings(s.namespace).Create(s.ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "rockpool-report"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "rockpool-report"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "default", Namespace: s.namespace}},
	}, metav1.CreateOptions{})
	s.must(err)
}

func withReports(p *corev1.Pod) {
	p.Annotations["rockpool.dev/report"] = "events,condition"
	withDebugLog(p)
}

// reported returns the pod's Events of the sidecar, and the condition.
func (s *site) reported(name string) (events []corev1.Event, condition *corev1.PodCondition) {
	s.t.Helper()
	list, err := s.cluster.Client().CoreV1().Events(s.namespace).List(s.ctx, metav1.ListOptions{})
	s.must(err)
	for _, e := range list.Items {
		if e.Source.Component == "rockpool-sidecar" && e.InvolvedObject.Name == name {
			events = append(events, e)
		}
	}
	pod, err := s.cluster.Client().CoreV1().Pods(s.namespace).Get(s.ctx, name, metav1.GetOptions{})
	s.must(err)
	if i := slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == linkToCloud }); i >= 0 {
		condition = &pod.Status.Conditions[i]
	}
	return events, condition
}

// TestTheCloudLearnsOfAnOutage: with the role, the pod's Events and its condition tell how long the site
// was cut and how old its answers became. Without it, there is one debug line for each kind.
func TestTheCloudLearnsOfAnOutage(t *testing.T) {
	t.Run("with the role", func(t *testing.T) {
		s := newSite(t)
		s.installReports()
		s.mayReport()
		s.allow(rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get", "list"}})
		p := s.pod(withReports)
		lost, back := p.isCut()
		s.tells(p, lost, back)
		s.policyHolds(p)
	})
	t.Run("without it", func(t *testing.T) {
		s := newSite(t)
		p := s.pod(withReports)
		p.isCut()
		s.until("one line for each kind", func() bool {
			return strings.Count(mustLogs(t, p, "rockpool-sidecar"), "refuses reports of outages") == 2
		})
		if events, condition := s.reported("web"); len(events) > 0 || condition != nil {
			t.Errorf("without the right: %v %v", events, condition)
		}
		p.hasCounted("refused", 1, 1)
	})
}

// isCut cuts the link for some seconds, while a program asks.
func (p *testPod) isCut() (lost, back time.Time) {
	p.site.t.Helper()
	p.sees(`"event":"synced"`)
	p.ask(get(p.site.configMaps()))
	lost = time.Now()
	p.offline()
	p.ask(get(p.site.configMaps()))
	away := time.NewTimer(3 * time.Second) // an outage that can be told from none, in whole seconds
	<-away.C
	p.online()
	return lost, time.Now()
}

// hasCounted compares the metric with the numbers of Events and conditions.
func (p *testPod) hasCounted(result string, events, conditions int) {
	p.site.t.Helper()
	for kind, want := range map[string]int{"event": events, "condition": conditions} {
		if n := p.metric(fmt.Sprintf("rockpool_reports_total{kind=%q,result=%q}", kind, result)); n != want {
			p.site.t.Errorf("%d reports of the kind %s are %s, want %d", n, kind, result, want)
		}
	}
}

// tells checks what the cloud knows of an outage.
func (s *site) tells(p *testPod, lost, back time.Time) {
	s.t.Helper()
	var events []corev1.Event
	var condition *corev1.PodCondition
	s.until("Events and a condition", func() bool {
		events, condition = s.reported("web")
		return len(events) == 2 && condition != nil
	})
	for _, e := range events {
		if e.FirstTimestamp.Time.Before(lost.Add(-time.Second)) || e.FirstTimestamp.After(back) || e.Count != 1 || e.InvolvedObject.UID != p.Pod().UID {
			s.t.Errorf("an Event between %s and %s: %+v", lost, back, e)
		}
		switch e.Reason {
		case "LinkLost":
			if e.Type != corev1.EventTypeWarning || !strings.Contains(e.Message, "203.0.113.10:6443") {
				s.t.Errorf("%s %s", e.Type, e.Message)
			}
		case "LinkRestored":
			if e.Type != corev1.EventTypeNormal || !strings.HasPrefix(e.Message, "cut for ") || !strings.Contains(e.Message, "oldest answer: ") {
				s.t.Errorf("%s %s", e.Type, e.Message)
			}
		default:
			s.t.Errorf("an Event for %s", e.Reason)
		}
	}
	if condition.Status != corev1.ConditionTrue || !strings.HasPrefix(condition.Message, "cut for ") || !strings.Contains(condition.Message, "oldest answer ") || condition.LastTransitionTime.After(back) {
		s.t.Errorf("%+v", condition)
	}
	column := p.kubectl("get", "pods", "-o", `custom-columns=NAME:.metadata.name,LINK:.status.conditions[?(@.type=="`+linkToCloud+`")].message`)
	if !strings.Contains(column, "web") || !strings.Contains(column, condition.Message) {
		s.t.Errorf("kubectl get shows\n%s", column)
	}
	s.t.Logf("kubectl get pods -o custom-columns=…\n%s%s", column, p.kubectl("get", "events"))
	p.hasCounted("sent", 2, 1)
	bytes := func(direction, verb, resource string) int {
		return p.metric(fmt.Sprintf(`rockpool_link_bytes_total{agent="rockpool-sidecar",direction=%q,resource=%q,verb=%q}`, direction, resource, verb))
	}
	sent := bytes("sent", "create", "events") + bytes("sent", "patch", "pods/status")
	s.t.Logf("%d bytes of bodies were sent, %d came back for two Events and %d for the condition", sent, bytes("received", "create", "events"), bytes("received", "patch", "pods/status"))
	if sent == 0 || sent > 2<<10 {
		s.t.Errorf("%d bytes for two changes of the link", sent)
	}
}

// policyHolds tries what the role alone would allow.
func (s *site) policyHolds(p *testPod) {
	s.t.Helper()
	other, err := s.cluster.Client().CoreV1().Pods(s.namespace).Create(s.ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "other"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "informer:dev"}}},
	}, metav1.CreateOptions{})
	s.must(err)
	condition := func(uid, fields string) string {
		return `{"metadata":{"uid":"` + uid + `"},"status":{"conditions":[{"type":"` + linkToCloud + `","status":"True",` + fields + `}]}}`
	}
	own := string(p.Pod().UID)
	for _, test := range []struct{ name, pod, patch, want string }{
		{"its own condition", "web", condition(own, `"message":"cut for 1s"`), ""},
		{"another pod's", "other", condition(string(other.UID), `"message":"cut for 1s"`), "of itself only"},
		{"a condition that is not True", "web", strings.Replace(condition(own, `"message":"x"`), `"True"`, `"False"`, 1), "is True"},
		{"a long message", "web", condition(own, `"message":"`+strings.Repeat("x", 321)+`"`), "320 letters"},
		{"a long reason", "web", condition(own, `"reason":"`+strings.Repeat("x", 65)+`"`), "a reason of 64"},
		{"another condition", "web", `{"status":{"conditions":[{"type":"Ready","status":"True"}]}}`, "only the condition"},
		{"a further condition", "web", `{"status":{"conditions":[{"type":"example.com/Approved","status":"True"}]}}`, "only the condition"},
		{"the phase", "web", `{"status":{"phase":"Succeeded"}}`, "only the condition"},
		{"the address", "web", `{"status":{"podIP":"10.0.0.9","podIPs":[{"ip":"10.0.0.9"}]}}`, "only the condition"},
		{"an annotation", "web", `{"metadata":{"annotations":{"rockpool.dev/upstreams":"https://203.0.113.66"}}}`, "metadata"},
		{"an annotation that goes", "web", `{"metadata":{"annotations":{"rockpool.dev/report":null}}}`, "metadata"},
		{"a label", "web", `{"metadata":{"labels":{"app":"database"}}}`, "metadata"},
		{"a finalizer", "web", `{"metadata":{"finalizers":["example.com/forever"]}}`, "metadata"},
	} {
		a := p.ask(question{
			Method: "PATCH", Target: "/api/v1/namespaces/" + s.namespace + "/pods/" + test.pod + "/status", Body: test.patch,
			Headers: map[string]string{"Authorization": "Bearer {token}", "Content-Type": "application/strategic-merge-patch+json"},
		})[0]
		if test.want == "" && a.Status != 200 || test.want != "" && (a.Status != 403 || !strings.Contains(a.status(s.t).Message, test.want)) {
			s.t.Errorf("%s: %d %.400s", test.name, a.Status, a.Body)
		}
	}
	// An administrator, and a kubelet, are not concerned.
	_, err = s.cluster.Client().CoreV1().Pods(s.namespace).Patch(s.ctx, "other", "application/strategic-merge-patch+json", []byte(`{"status":{"phase":"Running"}}`), metav1.PatchOptions{}, "status")
	s.must(err)
	policy, err := s.cluster.Client().AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(s.ctx, "rockpool-report", metav1.GetOptions{})
	s.must(err)
	if policy.Status.TypeChecking != nil && len(policy.Status.TypeChecking.ExpressionWarnings) > 0 {
		s.t.Errorf("warnings about the policy: %v", policy.Status.TypeChecking.ExpressionWarnings)
	}
}
