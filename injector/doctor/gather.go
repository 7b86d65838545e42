package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"rockpool.dev/injector/inject"
)

// PolicyName is the ValidatingAdmissionPolicy that refuses damaged pods.
const PolicyName = "rockpool-injected-pods"

// pageSize bounds the memory of one answer of the API server.
const pageSize = 500

// callTimeout bounds each call. The API server itself waits 5 s for a webhook.
const callTimeout = 15 * time.Second

// Options say what to read.
type Options struct {
	Config *rest.Config
	Names  Names
	// ProbeNamespace is where a pod is tried with dryRun; empty: none is.
	ProbeNamespace string
	// Flags returns the settings and excluded namespaces by the flags of the injector's container;
	// nil if there is none.
	Flags func(*corev1.Container) (inject.Params, []string)
	// Now is time.Now, except in tests.
	Now func() time.Time
}

// Client reads facts from an API server, with the rights of the person who runs the command.
type Client struct {
	core, admission *rest.RESTClient
	options         Options
}

// NewClient returns a Client.
func NewClient(o Options) (*Client, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, admissionregistrationv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	client := func(path string, version schema.GroupVersion) (*rest.RESTClient, error) {
		c := rest.CopyConfig(o.Config)
		c.APIPath, c.GroupVersion, c.NegotiatedSerializer, c.Timeout, c.WarningHandler = path, &version, codecs, callTimeout, rest.NoWarnings{}
		c.QPS, c.Burst = 50, 100
		return rest.RESTClientFor(c)
	}
	core, err := client("/api", corev1.SchemeGroupVersion)
	if err != nil {
		return nil, fmt.Errorf("client of the API server: %w", err)
	}
	admission, err := client("/apis", admissionregistrationv1.SchemeGroupVersion)
	if err != nil {
		return nil, fmt.Errorf("client of the API server: %w", err)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Client{core: core, admission: admission, options: o}, nil
}

// Gather reads all facts. What cannot be read is in [Facts.Unread].
func (c *Client) Gather(ctx context.Context, programVersion string) *Facts {
	o := &c.options
	f := &Facts{Now: o.Now(), Names: o.Names, Version: programVersion, Unread: map[Object]error{}}
	var info version.Info
	raw, err := c.core.Get().AbsPath("/version").DoRaw(ctx)
	if err == nil {
		err = json.Unmarshal(raw, &info)
	}
	if f.ServerError = err; err != nil {
		return f
	}
	f.Server = info.GitVersion
	get := func(of Object, client *rest.RESTClient, namespace, resource, name string, into runtime.Object) bool {
		r := client.Get().Resource(resource).Name(name)
		if namespace != "" {
			r = r.Namespace(namespace)
		}
		err := r.Do(ctx).Into(into)
		if err != nil && !apierrors.IsNotFound(err) {
			f.Unread[of] = err
		}
		return err == nil
	}
	f.Configuration = &admissionregistrationv1.MutatingWebhookConfiguration{}
	if !get(Configurations, c.admission, "", string(Configurations), o.Names.Configuration, f.Configuration) {
		f.Configuration = nil
	}
	f.Policy = get(Policies, c.admission, "", string(Policies), PolicyName, &admissionregistrationv1.ValidatingAdmissionPolicy{})
	f.Service = &corev1.Service{}
	if !get(Services, c.core, o.Names.Namespace, "services", o.Names.Service, f.Service) {
		f.Service = nil
	}
	c.injectors(ctx, f)
	var secret corev1.Secret
	if get(Secrets, c.core, o.Names.Namespace, "secrets", f.Names.Secret, &secret) {
		f.Certificate = secret.Data[corev1.TLSCertKey] // and nothing else of it
	}
	f.Settings = &corev1.ConfigMap{}
	if !get(ConfigMaps, c.core, o.Names.Namespace, "configmaps", o.Names.ConfigMap, f.Settings) {
		f.Settings = nil
	}
	f.note(NodeList, c.pages(ctx, "nodes", "", func() runtime.Object { return &corev1.NodeList{} }, func(page runtime.Object) {
		f.Nodes = append(f.Nodes, page.(*corev1.NodeList).Items...)
	}))
	f.note(Namespaces, c.pages(ctx, "namespaces", "", func() runtime.Object { return &corev1.NamespaceList{} }, func(page runtime.Object) {
		f.Namespaces = append(f.Namespaces, page.(*corev1.NamespaceList).Items...)
	}))
	f.note(PodList, c.pages(ctx, "pods", "", func() runtime.Object { return &corev1.PodList{} }, func(page runtime.Object) {
		for _, p := range page.(*corev1.PodList).Items {
			if f.concerns(&p) {
				f.Pods = append(f.Pods, p)
			}
		}
	}))
	if o.ProbeNamespace != "" {
		f.Probe = c.probe(ctx, o.ProbeNamespace)
	}
	return f
}

func (f *Facts) note(o Object, err error) {
	if err != nil {
		f.Unread[o] = err
	}
}

// concerns reports whether a pod may have asked for Rockpool.
func (f *Facts) concerns(p *corev1.Pod) bool {
	_, injected := p.Annotations[inject.AnnotationStatus]
	return injected || inject.Requested(p.Annotations, f.labelsOf(p.Namespace)[inject.AnnotationInject] == "true")
}

// injectors reads the pods behind the Service, and what their container says.
func (c *Client) injectors(ctx context.Context, f *Facts) {
	var container *corev1.Container
	if f.Service != nil && len(f.Service.Spec.Selector) > 0 {
		var pods corev1.PodList
		options := metav1.ListOptions{LabelSelector: labels.SelectorFromSet(f.Service.Spec.Selector).String()}
		err := c.core.Get().Namespace(f.Names.Namespace).Resource("pods").VersionedParams(&options, metav1.ParameterCodec).Do(ctx).Into(&pods)
		f.note(Injectors, err)
		f.Injectors = pods.Items
		for i := range pods.Items {
			for j := range pods.Items[i].Spec.Containers {
				if pods.Items[i].Spec.Containers[j].Name == ContainerName {
					container = &pods.Items[i].Spec.Containers[j]
				}
			}
			for _, v := range pods.Items[i].Spec.Volumes {
				if v.Secret != nil { // with cert-manager
					f.Names.Secret = v.Secret.SecretName
				}
			}
		}
	}
	f.Base, f.Excluded = c.options.Flags(container)
	if container == nil {
		f.Excluded = nil // the component kube-system has others than the defaults
	}
}

// pages reads a list in pages.
func (c *Client) pages(ctx context.Context, resource, namespace string, list func() runtime.Object, each func(runtime.Object)) error {
	options := metav1.ListOptions{Limit: pageSize}
	for {
		page := list()
		err := c.core.Get().Namespace(namespace).Resource(resource).VersionedParams(&options, metav1.ParameterCodec).Do(ctx).Into(page)
		if err != nil {
			return err
		}
		each(page)
		if options.Continue = page.(metav1.ListInterface).GetContinue(); options.Continue == "" {
			return nil
		}
	}
}

// Pod returns a pod as a [Candidate].
func (c *Client) Pod(ctx context.Context, namespace, name string) (Candidate, error) {
	var pod corev1.Pod
	err := c.core.Get().Namespace(namespace).Resource("pods").Name(name).Do(ctx).Into(&pod)
	return Candidate{Name: "Pod " + namespace + "/" + name, Namespace: namespace, Pod: &pod}, err
}

// probe has the API server call the webhook.
func (c *Client) probe(ctx context.Context, namespace string) *Probe {
	p := &Probe{Namespace: namespace}
	var created corev1.Pod
	err := c.core.Post().Namespace(namespace).Resource("pods").
		VersionedParams(&metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}, metav1.ParameterCodec).
		Body(probePod()).Do(ctx).Into(&created)
	if err != nil {
		p.Error = err.Error()
		return p
	}
	var status inject.Status
	text, injected := created.Annotations[inject.AnnotationStatus]
	if p.Injected = injected; injected && json.Unmarshal([]byte(text), &status) == nil {
		p.Version = status.Version
	}
	return p
}

// probePod is allowed by every Pod Security level.
func probePod() *corev1.Pod {
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: "rockpool-doctor-", Annotations: map[string]string{inject.AnnotationInject: "true", inject.AnnotationCacheVolume: string(inject.CacheEmptyDir)},
		},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: ptr.To(true),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To[int64](65532), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "probe", Image: "rockpool-doctor:never-runs",
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
}
