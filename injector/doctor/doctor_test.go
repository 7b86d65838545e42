package doctor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"rockpool.dev/injector/inject"
)

var now = time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)

// authority is a CA of the tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, until time.Time) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: rand.Text()}, NotBefore: now.Add(-1000 * time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

func (a authority) bundle() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

func (a authority) issue(t *testing.T, name string, until time.Time) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name}, NotBefore: now.Add(-1000 * time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

const (
	day  = 24 * time.Hour
	host = "rockpool-injector.rockpool-system.svc"
)

// hook is a webhook as in the manifests.
func hook(name, path string, bundle []byte, asks bool) admissionregistrationv1.MutatingWebhook {
	h := admissionregistrationv1.MutatingWebhook{
		Name: name, FailurePolicy: ptr.To(admissionregistrationv1.Fail),
		ClientConfig: admissionregistrationv1.WebhookClientConfig{CABundle: bundle, Service: &admissionregistrationv1.ServiceReference{
			Namespace: "rockpool-system", Name: "rockpool-injector", Path: &path, Port: ptr.To[int32](443),
		}},
		NamespaceSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
			Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpNotIn, Values: []string{"kube-system", "rockpool-system"},
		}}},
	}
	if asks {
		h.NamespaceSelector.MatchLabels = map[string]string{inject.AnnotationInject: "true"}
	}
	return h
}

func namespace(name string, labels map[string]string) corev1.Namespace {
	return corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
}

func node(name, kubelet string, labels map[string]string) corev1.Node {
	return corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Status: corev1.NodeStatus{NodeInfo: corev1.NodeSystemInfo{KubeletVersion: kubelet}}}
}

func injector(name string) corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "rockpool-system", Name: name},
		Spec: corev1.PodSpec{NodeName: "cloud-1", Containers: []corev1.Container{{
			Name: ContainerName, Image: "rockpool:v1", Ports: []corev1.ContainerPort{{Name: "webhook", ContainerPort: 8443}},
		}}},
		Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
}

// application is a pod that asks for Rockpool and is as the ServiceAccount admission plugin leaves it.
func application(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: "u-1", Annotations: map[string]string{inject.AnnotationInject: "true"}},
		Spec: corev1.PodSpec{
			ServiceAccountName: "web", NodeName: "edge-1",
			Containers: []corev1.Container{{Name: "app", Image: "app:v1", VolumeMounts: []corev1.VolumeMount{{
				Name: "kube-api-access-x", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true,
			}}}},
			Volumes: []corev1.Volume{{Name: "kube-api-access-x", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}, Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}}},
				{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}}}},
			}}}}},
		},
	}
}

// running is an injected pod whose sidecar runs.
func running(name string, params inject.Params) corev1.Pod {
	p, _ := inject.Inject(application(name), inject.Facts{Namespace: "shop"}, params)
	p.Status.InitContainerStatuses = []corev1.ContainerStatus{{
		Name: inject.ContainerSidecar, Started: ptr.To(true), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
	}}
	return *p
}

// cluster is one without faults, until a test plants one.
func cluster(t *testing.T) *Facts {
	t.Helper()
	ca := newAuthority(t, now.Add(700*day))
	base := inject.Params{Version: "v1", Image: "rockpool:v1", CacheHostPath: inject.DefaultCacheHostPath}
	return &Facts{
		Now: now, Version: "v1", Server: "v1.36.3", Unread: map[Object]error{}, Policy: true, Base: base, Excluded: inject.ExcludedNamespaces,
		Names: Names{Namespace: "rockpool-system", Service: "rockpool-injector", Configuration: "rockpool", Secret: "certificate", ConfigMap: "rockpool-cfg"},
		Configuration: &admissionregistrationv1.MutatingWebhookConfiguration{Webhooks: []admissionregistrationv1.MutatingWebhook{
			hook("inject.rockpool.dev", "/inject", ca.bundle(), false), hook("inject-namespace.rockpool.dev", "/inject/namespace", ca.bundle(), true),
		}},
		Service: &corev1.Service{Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "injector"}, Ports: []corev1.ServicePort{{Port: 443, TargetPort: intstr.FromString("webhook")}},
		}},
		Injectors: []corev1.Pod{injector("a"), injector("b")}, Certificate: ca.issue(t, host, now.Add(60*day)),
		Settings:   &corev1.ConfigMap{Data: map[string]string{"upstreams": "https://api.example.com:6443"}},
		Nodes:      []corev1.Node{node("cloud-1", "v1.36.3", nil), node("edge-1", "v1.30.0", map[string]string{"node-role.kubernetes.io/edge": ""})},
		Namespaces: []corev1.Namespace{namespace("default", nil), namespace("shop", nil), namespace("kube-system", nil), namespace("asking", map[string]string{inject.AnnotationInject: "true"})},
		Pods:       []corev1.Pod{running("web-0", base)},
		Probe:      &Probe{Namespace: "default", Injected: true, Version: "v1"},
	}
}

func TestAClusterInWhichAllIsWell(t *testing.T) {
	all := Examine(cluster(t))
	var codes []Code
	for _, f := range all {
		if f.Level != OK || f.Next != "" || f.Fact == "" {
			t.Errorf("%+v", f)
		}
		codes = append(codes, f.Code)
	}
	if want := []Code{Server, Webhook, Certificate, Injector, Call, Settings, Nodes, Sidecars}; !slices.Equal(codes, want) {
		t.Errorf("%v, want %v", codes, want)
	}
}

// calling is the error of an API server about a webhook that it cannot call.
func calling(problem string) string {
	return `Internal error occurred: failed calling webhook "inject.rockpool.dev": failed to call webhook: Post "https://` + host + `:443/inject?timeout=5s": ` + problem
}

func eachHook(f *Facts, change func(*admissionregistrationv1.MutatingWebhook)) {
	for i := range f.Configuration.Webhooks {
		change(&f.Configuration.Webhooks[i])
	}
}

func TestPlantedFaults(t *testing.T) {
	for _, test := range []struct {
		name  string
		plant func(*testing.T, *Facts)
		level Level
		code  Code
		fact  string
	}{
		{"the API server does not answer", func(_ *testing.T, f *Facts) { f.ServerError = errors.New("connection refused") }, Fail, ServerSilent, "connection refused"},
		{"an old API server", func(_ *testing.T, f *Facts) { f.Server = "v1.28.4" }, Fail, ServerOld, "v1.28.4"},
		{"no right to see nodes", func(_ *testing.T, f *Facts) { f.Nodes, f.Unread[NodeList] = nil, errors.New("forbidden") }, Warn, NotAllowed, "nodes: forbidden"},
		{"no webhook", func(_ *testing.T, f *Facts) { f.Configuration = nil }, Fail, WebhookMissing, "rockpool"},
		{"a webhook of another Service", func(_ *testing.T, f *Facts) {
			eachHook(f, func(h *admissionregistrationv1.MutatingWebhook) { h.ClientConfig.Service.Name = "other" })
		}, Fail, WebhookElsewhere, "rockpool-system/rockpool-injector"},
		{"no webhook for namespaces", func(_ *testing.T, f *Facts) { f.Configuration.Webhooks = f.Configuration.Webhooks[:1] }, Fail, WebhookIncomplete, "/inject/namespace"},
		{"a webhook that may fail", func(_ *testing.T, f *Facts) {
			f.Configuration.Webhooks[0].FailurePolicy = ptr.To(admissionregistrationv1.Ignore)
		}, Warn, FailurePolicyIgnore, "inject.rockpool.dev"},
		{"an excluded namespace that the API server asks about", func(_ *testing.T, f *Facts) { f.Excluded = []string{"shop"} }, Fail, ExclusionsDiffer, "shop"},
		{"an excluded namespace that asks", func(_ *testing.T, f *Facts) {
			f.Namespaces = append(f.Namespaces, namespace("rockpool-system", map[string]string{inject.AnnotationInject: "true"}))
		}, Warn, NamespaceExcluded, "rockpool-system"},
		{"no policy", func(_ *testing.T, f *Facts) { f.Policy = false }, Warn, PolicyMissing, PolicyName},
		{"an empty caBundle", func(_ *testing.T, f *Facts) { f.Configuration.Webhooks[1].ClientConfig.CABundle = nil }, Fail, CABundleEmpty, "inject-namespace.rockpool.dev"},
		{"a caBundle that is none", func(_ *testing.T, f *Facts) {
			eachHook(f, func(h *admissionregistrationv1.MutatingWebhook) { h.ClientConfig.CABundle = []byte("Cg==") })
		}, Fail, CABundleInvalid, "no certificate"},
		{"an expired CA", func(t *testing.T, f *Facts) {
			old := newAuthority(t, now.Add(-day)).bundle()
			eachHook(f, func(h *admissionregistrationv1.MutatingWebhook) { h.ClientConfig.CABundle = old })
		}, Fail, CABundleExpired, "2026-08-31"},
		{"a caBundle of another CA", func(t *testing.T, f *Facts) {
			f.Configuration.Webhooks[0].ClientConfig.CABundle = newAuthority(t, now.Add(day)).bundle()
		}, Fail, CABundleMismatch, "inject.rockpool.dev"},
		{"no certificate", func(_ *testing.T, f *Facts) { f.Certificate = nil }, Fail, CertificateMissing, "rockpool-system/certificate"},
		{"an expired certificate", func(t *testing.T, f *Facts) { f.Certificate = reissue(t, f, host, now.Add(-day)) }, Fail, CertificateExpired, "2026-08-31"},
		{"a certificate that was not renewed", func(t *testing.T, f *Facts) { f.Certificate = reissue(t, f, host, now.Add(5*day)) }, Warn, CertificateExpiring, "2026-09-06"},
		{"a certificate with another name", func(t *testing.T, f *Facts) { f.Certificate = reissue(t, f, "web.shop.svc", now.Add(60*day)) }, Fail, CertificateWrongName, "web.shop.svc"},
		{"no Service", func(_ *testing.T, f *Facts) { f.Service = nil }, Fail, ServiceMissing, "rockpool-system/rockpool-injector"},
		{"a Service without the port", func(_ *testing.T, f *Facts) { f.Service.Spec.Ports[0].Port = 8443 }, Fail, ServicePort, "port 443"},
		{"a Service of no port of the container", func(_ *testing.T, f *Facts) { f.Service.Spec.Ports[0].TargetPort = intstr.FromString("https") }, Fail, ServicePort, `"https"`},
		{"no injector", func(_ *testing.T, f *Facts) { f.Injectors = nil }, Fail, InjectorMissing, "no pod"},
		{"no injector that is ready", func(_ *testing.T, f *Facts) {
			for i := range f.Injectors {
				f.Injectors[i].Status = corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}}}}
			}
		}, Fail, InjectorNotReady, "ImagePullBackOff"},
		{"one injector", func(_ *testing.T, f *Facts) { f.Injectors = f.Injectors[:1] }, Warn, InjectorAlone, "1 of 1"},
		{"an injector at the edge", func(_ *testing.T, f *Facts) { f.Injectors[0].Spec.NodeName = "edge-1" }, Warn, InjectorAtEdge, "edge-1"},
		{"two versions of the injector", func(_ *testing.T, f *Facts) { f.Injectors[0].Spec.Containers[0].Image = "rockpool:v2" }, Warn, InjectorsDiffer, "rockpool:v1, rockpool:v2"},
		{"a port where nobody listens", func(_ *testing.T, f *Facts) {
			f.Probe = &Probe{Error: calling("dial tcp 10.0.0.9:443: connect: connection refused")}
		}, Fail, CallRefused, "connection refused"},
		{"a firewall", func(_ *testing.T, f *Facts) { f.Probe = &Probe{Error: calling("context deadline exceeded")} }, Fail, CallSilent, "deadline"},
		{"a certificate that the API server does not trust", func(_ *testing.T, f *Facts) {
			f.Probe = &Probe{Error: calling("tls: failed to verify certificate: x509: certificate signed by unknown authority")}
		}, Fail, CallUntrusted, "unknown authority"},
		{"a webhook that answers with nonsense", func(_ *testing.T, f *Facts) { f.Probe = &Probe{Error: calling("unexpected EOF")} }, Fail, CallFails, "EOF"},
		{"an injector that fails on the pod", func(_ *testing.T, f *Facts) {
			f.Probe = &Probe{Error: `admission webhook "inject.rockpool.dev" denied the request: rockpool: the injector failed on this pod; its log says why`}
		}, Fail, CallFails, "its log says why"},
		{"an API server that does not ask", func(_ *testing.T, f *Facts) { f.Probe = &Probe{Namespace: "default"} }, Fail, CallLeftOut, "default"},
		{"a quota", func(_ *testing.T, f *Facts) { f.Probe = &Probe{Error: `pods "x" is forbidden: exceeded quota`} }, Warn, CallInconclusive, "quota"},
		{"another webhook that is down", func(_ *testing.T, f *Facts) {
			f.Probe = &Probe{Error: `Internal error occurred: failed calling webhook "sidecar.istio.io": connection refused`}
		}, Warn, CallInconclusive, "istio"},
		{"no settings", func(_ *testing.T, f *Facts) { f.Settings = nil }, Warn, SettingsMissing, "rockpool-cfg"},
		{"settings with a wrong key", func(_ *testing.T, f *Facts) { f.Settings.Data["upstream"] = "x" }, Fail, SettingsRefused, "upstream: unknown key"},
		{"no upstreams", func(_ *testing.T, f *Facts) { f.Settings.Data = nil }, Warn, NoUpstreams, "no upstreams"},
		{"an old kubelet", func(_ *testing.T, f *Facts) { f.Nodes = append(f.Nodes, node("edge-2", "v1.27.16", nil)) }, Warn, OldKubelets, "edge-2 (v1.27.16)"},
		{"another version of the doctor", func(_ *testing.T, f *Facts) { f.Version = "v2" }, Warn, DoctorDiffers, "v2"},
		{"sidecars of another version", func(_ *testing.T, f *Facts) { f.Settings.Data["image"] = "rockpool:v2" }, Warn, SidecarsOutdated, "shop/web-0"},
		{"a sidecar that does not start", func(_ *testing.T, f *Facts) { f.Pods[0].Status.InitContainerStatuses = nil }, Warn, SidecarsUnhealthy, "shop/web-0 (not started)"},
		{"a pod that is older than Rockpool", func(_ *testing.T, f *Facts) { f.Pods = append(f.Pods, *application("web-1")) }, Warn, PodsNotInjected, "shop/web-1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := cluster(t)
			test.plant(t, f)
			all := Examine(f)
			var others []Finding
			for _, f := range all {
				switch {
				case f.Code == test.code:
					if f.Level != test.level || !strings.Contains(f.Fact, test.fact) || f.Next != Advice[f.Code] || f.Next == "" {
						t.Errorf("%+v, want %s with %q", f, test.level, test.fact)
					}
				case f.Level != OK:
					others = append(others, f)
				}
			}
			if !slices.ContainsFunc(all, func(f Finding) bool { return f.Code == test.code }) {
				t.Errorf("%s is not among %+v", test.code, all)
			}
			if len(others) > 0 {
				t.Errorf("also %+v", others)
			}
			if Worst(all) != test.level {
				t.Errorf("the worst is %s", Worst(all))
			}
		})
	}
}

// reissue makes another CA for the cluster, and a certificate by it.
func reissue(t *testing.T, f *Facts, name string, until time.Time) []byte {
	t.Helper()
	ca := newAuthority(t, now.Add(700*day))
	eachHook(f, func(h *admissionregistrationv1.MutatingWebhook) { h.ClientConfig.CABundle = ca.bundle() })
	return ca.issue(t, name, until)
}

// A cause that was named is not named again by what follows from it.
func TestTheCallIsSilentAboutAKnownCause(t *testing.T) {
	f := cluster(t)
	eachHook(f, func(h *admissionregistrationv1.MutatingWebhook) { h.ClientConfig.CABundle = nil })
	f.Probe = &Probe{Error: calling("tls: failed to verify certificate: x509: certificate signed by unknown authority")}
	if x := (&examination{findings: Examine(f)}); !x.has(CABundleEmpty) || x.has(CallUntrusted) {
		t.Errorf("%+v", x.findings)
	}
}

// The flags of an injector that is not there are unknown, and no reason for another finding.
func TestAnUnknownImageIsNoFault(t *testing.T) {
	f := cluster(t)
	f.Base.Image, f.Injectors = "", nil
	for _, f := range Examine(f) {
		if f.Level != OK && f.Code != InjectorMissing {
			t.Errorf("%+v", f)
		}
	}
}

// Nobody creates a Job's pod again that has done its work.
func TestAPodThatHasEndedIsNotMissed(t *testing.T) {
	for _, phase := range []corev1.PodPhase{corev1.PodSucceeded, corev1.PodFailed} {
		f := cluster(t)
		ended := application("job-1")
		ended.Status.Phase = phase
		f.Pods = append(f.Pods, *ended)
		if all := Examine(f); Worst(all) != OK {
			t.Errorf("%s: %+v", phase, all)
		}
	}
}

// With failurePolicy: Ignore, a pod is created also if the call fails.
func TestAnIgnoredFailureIsNotTakenForAWebhookThatIsNotAsked(t *testing.T) {
	f := cluster(t)
	eachHook(f, func(h *admissionregistrationv1.MutatingWebhook) {
		h.FailurePolicy = ptr.To(admissionregistrationv1.Ignore)
	})
	f.Probe = &Probe{Namespace: "default"}
	all := Examine(f)
	i := slices.IndexFunc(all, func(f Finding) bool { return f.Code == CallLeftOut })
	if i < 0 || !strings.Contains(all[i].Fact, "failurePolicy: Ignore hides") {
		t.Errorf("%+v", all)
	}
}

func TestWhetherANamespaceAsksMayBeUnknown(t *testing.T) {
	f := cluster(t)
	f.Namespaces, f.Unread[Namespaces] = nil, errors.New("forbidden")
	pod := application("web-9")
	pod.Annotations = nil
	all := Judge(f, []Candidate{{Name: "Pod asking/web-9", Namespace: "asking", Pod: pod}})
	if len(all) != 1 || all[0].Level != Warn || all[0].Code != PodNotRequested || !strings.Contains(all[0].Fact, "unless its namespace") {
		t.Errorf("%+v", all)
	}
	pod.Annotations = map[string]string{inject.AnnotationInject: "false"}
	if all := Judge(f, []Candidate{{Name: "Pod asking/web-9", Namespace: "asking", Pod: pod}}); Worst(all) != Fail {
		t.Errorf("%+v", all)
	}
}

func TestAnInjectorOutsideOfTheClusterIsJudgedByTheCall(t *testing.T) {
	f := cluster(t)
	f.Base.Image, f.Injectors, f.Settings.Data = "", nil, nil
	f.Service.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "injector.example.com"}
	if all := Examine(f); Worst(all) != OK {
		t.Errorf("%+v", all)
	}
	f.Probe = &Probe{Error: calling("dial tcp 10.0.0.9:443: connect: connection refused")}
	if x := (&examination{findings: Examine(f)}); !x.has(CallRefused) {
		t.Errorf("%+v", x.findings)
	}
}

func TestJudge(t *testing.T) {
	f := cluster(t)
	f.Nodes = append(f.Nodes, node("edge-2", "v1.27.16", nil))
	for _, test := range []struct {
		name   string
		change func(*Candidate)
		level  Level
		code   Code
		fact   string
	}{
		{"a new pod", func(c *Candidate) { c.Pod.UID = "" }, OK, Pod, "would be injected, with the image rockpool:v1"},
		{"an injected pod", func(c *Candidate) { p := running("web-0", f.Base); c.Pod = &p }, OK, Pod, "is injected"},
		{"a pod that is older than Rockpool", func(*Candidate) {}, Fail, PodOlder, "if it were created now"},
		{"a pod that does not ask", func(c *Candidate) { c.Pod.Annotations = nil }, Fail, PodNotRequested, "does not ask"},
		{"a pod that declines", func(c *Candidate) { c.Namespace = "asking"; c.Pod.Annotations[inject.AnnotationInject] = "false" }, Fail, PodNotRequested, "does not ask"},
		{"a new pod whose namespace asks", func(c *Candidate) { c.Namespace, c.Pod.Annotations, c.Pod.UID = "asking", nil, "" }, OK, Pod, "would be injected"},
		{"the annotation at the Deployment", func(c *Candidate) {
			c.Pod.Annotations, c.Annotations = nil, map[string]string{inject.AnnotationInject: "true"}
			c.Controller = &metav1.OwnerReference{Kind: "Deployment", Name: "web"}
		}, Fail, AnnotationMisplaced, "its pods do not"},
		{"a pod in an excluded namespace", func(c *Candidate) { c.Namespace = "kube-system" }, Fail, PodExcluded, "does not ask the webhook"},
		{"a pod in the node's network", func(c *Candidate) { c.Pod.Spec.HostNetwork = true }, Fail, PodSkipped, "host-network"},
		{"a pod without a token", func(c *Candidate) { c.Pod.Spec.Volumes, c.Pod.Spec.Containers[0].VolumeMounts = nil, nil }, Fail, PodSkipped, "no-service-account-mount"},
		{"a misspelt annotation", func(c *Candidate) { c.Pod.Annotations["rockpool.dev/cache-sise"] = "1Gi" }, Fail, PodRefused, "invalid-annotation"},
		{"a pod on an old node", func(c *Candidate) { c.Pod.Spec.NodeName = "edge-2" }, Fail, PodRefused, "old-kubelet"},
		{"a container of the same name", func(c *Candidate) { c.Pod.Spec.Containers[0].Name = inject.ContainerSidecar }, Fail, PodRefused, "name-conflict"},
		{"a new pod with a floating image", func(c *Candidate) { c.Pod.Annotations[inject.AnnotationImage], c.Pod.UID = "rockpool", "" }, Warn, PodNotice, "floating-image"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := Candidate{Name: "Pod shop/web-9", Namespace: "shop", Pod: application("web-9")}
			test.change(&c)
			all := Judge(f, []Candidate{c})
			i := slices.IndexFunc(all, func(f Finding) bool { return f.Code == test.code })
			if i < 0 || all[i].Level != test.level || !strings.Contains(all[i].Fact, test.fact) || !strings.HasPrefix(all[i].Fact, c.Name) {
				t.Errorf("%+v, want %s %s with %q", all, test.level, test.code, test.fact)
			}
			if Worst(all) != test.level {
				t.Errorf("the worst is %s", Worst(all))
			}
		})
	}
}

// Everybody who gets a code finds it in the manual, and nothing else.
func TestTheManualHasASectionForEachCode(t *testing.T) {
	page, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, found := strings.Cut(string(page), "\n## Pods are not injected\n")
	if !found {
		t.Fatal("docs/troubleshooting.md has no part about the injector")
	}
	sections := map[Code]bool{}
	for line := range strings.Lines(part) {
		if code, ok := strings.CutPrefix(strings.TrimSpace(line), "### "); ok {
			sections[Code(strings.Trim(code, "`"))] = true
		}
	}
	for code := range Advice {
		if !sections[code] {
			t.Errorf("docs/troubleshooting.md has no section for %s", code)
		}
		delete(sections, code)
	}
	for code := range sections {
		t.Errorf("docs/troubleshooting.md has a section for %s, which is no code", code)
	}
}

func FuzzCertificates(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if all := parseCertificates(text); len(all) > 0 && all[0] == nil {
			t.Error("no certificate")
		}
	})
}
