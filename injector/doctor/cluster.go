package doctor

import (
	"cmp"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"rockpool.dev/injector/fleet"
	"rockpool.dev/injector/inject"
	"rockpool.dev/injector/settings"
)

// call judges what became of the pod that was tried.
func (x *examination) call() {
	p := x.Probe
	switch {
	case p == nil || x.Configuration == nil && x.read(Configurations):
	case p.Error == "" && !p.Injected && x.has(FailurePolicyIgnore):
		x.found(Fail, CallLeftOut, "the API server would create a pod in %s that asks for Rockpool without it: it does not ask the injector, or failurePolicy: Ignore hides that the call fails", p.Namespace)
	case p.Error == "" && !p.Injected:
		x.found(Fail, CallLeftOut, "the API server would create a pod in %s that asks for Rockpool, without asking the injector", p.Namespace)
	case p.Error == "":
		x.ok(Call, "the API server has asked the injector (%s) about a pod in %s, by a dry run", cmp.Or(p.Version, "of an unknown version"), p.Namespace)
		if p.Version != "" && p.Version != x.Version {
			x.found(Warn, DoctorDiffers, "the injector is %s, and this doctor is %s", p.Version, x.Version)
		}
	default:
		code := callCode(p.Error)
		// What leads to this error was named already.
		if code == CallUntrusted && x.has(CABundleEmpty, CABundleInvalid, CABundleExpired, CABundleMismatch, CertificateExpired, CertificateWrongName) ||
			code == CallRefused && x.has(ServiceMissing, ServicePort, InjectorMissing, InjectorNotReady) {
			return
		}
		level := Fail
		if code == CallInconclusive {
			level = Warn
		}
		x.found(level, code, "a pod in %s that asks for Rockpool cannot be created: %s", p.Namespace, p.Error)
	}
}

// callCode knows the messages of the API server about a webhook that it cannot call (apiserver,
// pkg/admission/plugin/webhook), and of the Go library below it.
func callCode(message string) Code {
	contains := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(message, p) {
				return true
			}
		}
		return false
	}
	switch {
	case !contains("failed calling webhook") || !contains("rockpool.dev"):
		if contains("the injector failed on this pod") {
			return CallFails
		}
		return CallInconclusive
	case contains("x509:", "tls: failed to verify"):
		return CallUntrusted
	case contains("connection refused", "no endpoints available", "not found", "no service port"):
		return CallRefused
	case contains("context deadline exceeded", "i/o timeout", "Client.Timeout", "no route to host", "network is unreachable"):
		return CallSilent
	}
	return CallFails
}

// unknownImage stands for the image of the injector's flags where these cannot be seen.
const unknownImage = "rockpool:unknown"

// effective returns the settings for new pods: those of the flags, overridden by the ConfigMap.
func (f *Facts) effective() (inject.Params, error) {
	params := f.Base
	params.Image = cmp.Or(params.Image, unknownImage)
	if f.Settings == nil {
		return params, nil
	}
	return settings.Apply(params, f.Settings.Data)
}

// settings checks the ConfigMap with the settings for all pods.
func (x *examination) settings() {
	params, err := x.effective()
	x.params = params
	if !x.read(ConfigMaps) {
		return
	}
	if x.Settings == nil {
		x.found(Warn, SettingsMissing, "there is no ConfigMap %s/%s", x.Names.Namespace, x.Names.ConfigMap)
		return
	}
	if err != nil {
		x.found(Fail, SettingsRefused, "the ConfigMap %s/%s is invalid: %s", x.Names.Namespace, x.Names.ConfigMap, strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	upstreams := params.Settings["upstream.servers"]
	if upstreams == "" && x.Base.Image != "" {
		x.found(Warn, NoUpstreams, "no upstreams are named for all pods")
		return
	}
	x.ok(Settings, "pods get %s, and reach the API server at %s", params.Image, cmp.Or(upstreams, "the addresses of the injector's flags, which cannot be seen"))
}

// nodes looks for kubelets without native sidecars.
func (x *examination) nodes() {
	if !x.read(NodeList) {
		return
	}
	var old []string
	for i := range x.Nodes {
		if n := &x.Nodes[i]; inject.OldKubelet(n.Status.NodeInfo.KubeletVersion) {
			old = append(old, n.Name+" ("+n.Status.NodeInfo.KubeletVersion+")")
		}
	}
	if len(old) > 0 {
		x.found(Warn, OldKubelets, "%d of %d nodes do not have native sidecars: %s", len(old), len(x.Nodes), some(old))
		return
	}
	x.ok(Nodes, "all %d nodes have native sidecars", len(x.Nodes))
}

// sidecars looks at those that run.
func (x *examination) sidecars() {
	if !x.read(PodList) {
		return
	}
	var outdated, unhealthy []string
	all := fleet.Look(x.Pods)
	known := x.params.Image != unknownImage && !x.has(SettingsRefused)
	for i := range all {
		s := &all[i]
		if known && s.Outdated(x.params.Image) && s.Image != x.params.CanaryImage {
			outdated = append(outdated, s.String())
		}
		if s.Problem != "" {
			unhealthy = append(unhealthy, s.String()+" ("+s.Problem+")")
		}
	}
	if len(outdated) > 0 {
		x.found(Warn, SidecarsOutdated, "%d of %d sidecars do not have the image %s: %s", len(outdated), len(all), x.params.Image, some(outdated))
	}
	if len(unhealthy) > 0 {
		x.found(Warn, SidecarsUnhealthy, "%d of %d sidecars do not serve their pods: %s", len(unhealthy), len(all), some(unhealthy))
	}
	if len(outdated)+len(unhealthy) == 0 {
		x.ok(Sidecars, "%d sidecars run", len(all))
	}
}

// forgotten looks for pods that would be injected if they were created now.
func (x *examination) forgotten() {
	if !x.read(PodList) || x.has(SettingsRefused) {
		return
	}
	var names []string
	for i := range x.Pods {
		p := &x.Pods[i]
		if _, injected := p.Annotations[inject.AnnotationStatus]; injected || p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		if _, result, code := x.decide(&Candidate{Pod: p, Namespace: p.Namespace}); code == Pod && result.Outcome == inject.Injected {
			names = append(names, p.Namespace+"/"+p.Name)
		}
	}
	if len(names) > 0 {
		x.found(Warn, PodsNotInjected, "%d pods ask for Rockpool and run without it: %s", len(names), some(names))
	}
}
