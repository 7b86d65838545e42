package e2enode

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestAHostNetworkPodHasItsOwnPort(t *testing.T) {
	s := newSite(t, "host")
	s.kubectl("apply", "-f", "testdata/hostnetwork.yaml")
	p := s.pod("host")
	p.sees("app", "synced")
	// The scheduler then puts no other pod with this port on the node.
	i := slices.IndexFunc(p.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == "rockpool-sidecar" })
	if ports := p.Spec.InitContainers[i].Ports; !slices.ContainsFunc(ports, func(port corev1.ContainerPort) bool { return port.HostPort == 20268 }) {
		t.Errorf("the sidecar's ports are %+v, want the host port 20268", ports)
	}

	testEnv.node.Link.Cut()
	p.linkIs("offline")
	s.configMap("hello again")
	p.kill("app")
	p.sees("app", "present", "greeting", `"hello"`)
	p.sees("app", "synced")
	testEnv.node.Link.Restore()
	p.sees("app", "updated", "hello again")
}
