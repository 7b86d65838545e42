package doctor

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"rockpool.dev/injector/inject"
)

// ContainerName is the name of the injector's container in its pods.
const ContainerName = "injector"

// service checks whether the port that the API server calls leads to a port of the injector.
func (x *examination) service() {
	if !x.read(Services) {
		return
	}
	if x.Service == nil {
		x.found(Fail, ServiceMissing, "there is no Service %s/%s", x.Names.Namespace, x.Names.Service)
		return
	}
	if x.elsewhere() {
		return
	}
	called := map[int32]bool{}
	for _, h := range x.hooks() {
		called[ptr.Deref(h.ClientConfig.Service.Port, 443)] = true
	}
	for _, port := range slices.Sorted(maps.Keys(called)) {
		i := slices.IndexFunc(x.Service.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == port })
		if i < 0 {
			x.found(Fail, ServicePort, "the webhook calls port %d, which the Service %s/%s does not have", port, x.Names.Namespace, x.Names.Service)
			continue
		}
		// A name without a port of a container leads nowhere; a number need not be declared.
		name := x.Service.Spec.Ports[i].TargetPort.StrVal
		if name != "" && len(x.Injectors) > 0 && !slices.ContainsFunc(x.Injectors, func(p corev1.Pod) bool { return hasPort(&p, name) }) {
			x.found(Fail, ServicePort, "the Service's targetPort %q is not a port of the injector's container", name)
		}
	}
}

// elsewhere tells whether the Service is only a name of something outside of the cluster: it selects no
// pods, and its ports do not count.
func (x *examination) elsewhere() bool {
	return x.Service.Spec.Type == corev1.ServiceTypeExternalName
}

func hasPort(pod *corev1.Pod, name string) bool {
	return slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool {
		return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == name })
	})
}

// injectors checks the pods behind the Service.
func (x *examination) injectors() {
	if !x.read(Injectors) || x.Service == nil || x.elsewhere() {
		return
	}
	if len(x.Injectors) == 0 {
		x.found(Fail, InjectorMissing, "no pod has the labels that the Service %s/%s selects", x.Names.Namespace, x.Names.Service)
		return
	}
	ready := 0
	images := map[string]bool{}
	var edge []string
	for i := range x.Injectors {
		p := &x.Injectors[i]
		if isReady(p) {
			ready++
		}
		for _, c := range p.Spec.Containers {
			if c.Name == ContainerName {
				images[c.Image] = true
			}
		}
		if n := slices.IndexFunc(x.Nodes, func(n corev1.Node) bool { return n.Name == p.Spec.NodeName }); n >= 0 && atEdge(x.Nodes[n].Labels) {
			edge = append(edge, p.Spec.NodeName)
		}
	}
	switch ready {
	case 0:
		x.found(Fail, InjectorNotReady, "none of %d injector pods is ready: %s", len(x.Injectors), waiting(x.Injectors))
		return
	case 1:
		x.found(Warn, InjectorAlone, "1 of %d injector pods is ready", len(x.Injectors))
	}
	if len(images) > 1 {
		x.found(Warn, InjectorsDiffer, "the injector pods have different images: %s", strings.Join(slices.Sorted(maps.Keys(images)), ", "))
	}
	if len(edge) > 0 {
		x.found(Warn, InjectorAtEdge, "an injector runs on an edge node: %s", some(edge))
	}
	if !x.has(InjectorAlone, InjectorsDiffer, InjectorAtEdge) {
		x.ok(Injector, "%d of %d injector pods are ready", ready, len(x.Injectors))
	}
}

func isReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// waiting says of the first pod why it is not ready.
func waiting(pods []corev1.Pod) string {
	for i := range pods {
		for _, s := range pods[i].Status.ContainerStatuses {
			if s.State.Waiting != nil && s.State.Waiting.Reason != "" {
				return s.State.Waiting.Reason
			}
		}
		for _, c := range pods[i].Status.Conditions {
			if c.Status == corev1.ConditionFalse && c.Message != "" {
				return c.Message
			}
		}
	}
	return "no reason is known"
}

// atEdge knows the labels of edge nodes that the injector's nodeAffinity avoids.
func atEdge(labels map[string]string) bool {
	for _, key := range []string{"node-role.kubernetes.io/edge", "node-role.kubernetes.io/agent", inject.AnnotationPrefix + "edge"} {
		if _, ok := labels[key]; ok {
			return true
		}
	}
	return labels["openyurt.io/is-edge-worker"] == "true" || labels["superedge.io/edge-node"] == "enable"
}
