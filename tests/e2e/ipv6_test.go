package e2e

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"rockpool.dev/tests/bed/pod"
	"rockpool.dev/tests/edge"
)

// TestPodsOfAnIPv6Cluster runs a cluster whose Services, pods and public address have IPv6 addresses
// only. The injector finds that out by itself, and clients find their sidecar at ::1.
func TestPodsOfAnIPv6Cluster(t *testing.T) {
	t.Parallel()
	if !pod.HasIPv6() {
		t.Skip("NOT VERIFIED: this machine's kernel has no IPv6")
	}
	other, err := edge.Start(t.Context(), edge.Options{Like: cluster, IPv6: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := other.Stop(); err != nil {
			t.Error(err)
		}
	})
	s := newSiteIn(t, other)
	s.configMap("greeting", "hello")
	p := s.pod(func(p *corev1.Pod) { p.Annotations["rockpool.dev/api-names"] = "true" })
	p.sees("present", "greeting", "hello")
	if got, want := strings.TrimSpace(p.shell("shell", "echo $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT $KUBERNETES_PORT_443_TCP_ADDR $KUBERNETES_PORT")), "::1 10268 ::1 tcp://[::1]:10268"; got != want {
		t.Errorf("the environment is %s, want %s", got, want)
	}
	if ip := strings.TrimSpace(p.shell("shell", "cat /proc/net/if_inet6 | cut -c-32")); !strings.Contains(ip, "fd000010024400000000000000000010") {
		t.Errorf("the pod has the addresses %s", ip)
	}
	all := func(value string) {
		t.Helper()
		if got := p.kubectl("get", "configmap", "greeting", "-o", "jsonpath={.data.value}"); got != value {
			t.Errorf("kubectl: %q", got)
		}
		if got := p.python("get", "greeting"); got.Data["value"] != value {
			t.Errorf("Python's client: %+v", got)
		}
		for name, server := range map[string]string{"the hard-coded port 443": "[$KUBERNETES_PORT_443_TCP_ADDR]", "the host and the port": "[$KUBERNETES_SERVICE_HOST]:$KUBERNETES_SERVICE_PORT"} {
			got := p.shell("shell", "URL=https://"+server+"/api/v1/namespaces/"+s.namespace+"/configmaps/greeting; export URL; /usr/bin/python3 -c '"+readScript+"'")
			if !strings.Contains(got, `"value":"`+value+`"`) {
				t.Errorf("%s: %s", name, got)
			}
		}
	}
	all("hello")
	p.offline()
	p.restart("app")
	p.sees("present", "greeting", "hello")
	all("hello")
	p.restart("rockpool-sidecar")
	p.restart("app")
	p.sees("present", "greeting", "hello")
	all("hello")
	s.configMap("greeting", "good morning")
	p.online()
	p.sees("updated", "greeting", "good morning")
	all("good morning")
}

// readScript reads a URL with the pod's account, and verifies the certificate for the address in it.
const readScript = `
import os, ssl, urllib.request
account = "/var/run/secrets/kubernetes.io/serviceaccount/"
q = urllib.request.Request(os.environ["URL"], headers={"Authorization": "Bearer " + open(account + "token").read()})
print(urllib.request.urlopen(q, context=ssl.create_default_context(cafile=account + "ca.crt"), timeout=20).read().decode())
`
