package e2enode

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/tests/bed/node"
)

// A pod that has no IPv4 address finds its sidecar at ::1, by every name and at port 443, and the
// sidecar finds the API server. The cluster's Services have IPv4, so the pod is injected by
// `rockpool-injector inject`, which is told that the pod has IPv6.
func TestAPodWithIPv6Only(t *testing.T) {
	s := newSite(t, "ipv6")
	if !node.HasIPv6() {
		t.Skip("NOT VERIFIED: this machine's kernel has no IPv6")
	}
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skipf("NOT VERIFIED: pods use the machine's curl: %v", err)
	}
	class := &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "ipv6"}, Handler: node.IPv6Handler}
	_, err := testEnv.Client().NodeV1().RuntimeClasses().Create(s.ctx, class, metav1.CreateOptions{})
	s.try(err)
	var stderr bytes.Buffer
	inject := exec.CommandContext(s.ctx, program("rockpool-injector"), "inject", "-f", "testdata/ipv6.yaml", "--ipv6",
		"--sidecar-image", rockpoolImage)
	inject.Stderr = &stderr
	injected, err := inject.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	manifest := filepath.Join(t.TempDir(), "injected.yaml")
	s.try(os.WriteFile(manifest, injected, 0o600))
	s.kubectl("apply", "-f", manifest)
	p := s.pod("ipv6")
	if ip, err := netip.ParseAddr(p.Status.PodIP); err != nil || !ip.Is6() || len(p.Status.PodIPs) != 1 {
		t.Fatalf("the pod has the addresses %v, want one of IPv6", p.Status.PodIPs)
	}
	all := func(value string) {
		t.Helper()
		after := time.Now()
		for _, base := range []string{"kubernetes:", "kubernetes.default:", "kubernetes.default.svc:", "kubernetes.default.svc.cluster.local:", "address:", "port:", "both:"} {
			p.seesAfter(after, "app", base+" {", `"value":"`+value+`"`)
		}
	}
	all("hello")
	p.sees("informer", "present", "hello")
	p.recorded()

	testEnv.node.Link.Cut()
	p.linkIs("offline")
	p.kill("informer")
	p.sees("informer", "present", "hello")
	all("hello")
	p.kill("rockpool-sidecar")
	all("hello")
	s.configMap("changed")
	testEnv.node.Link.Restore()
	all("changed")
	p.sees("informer", "updated", "changed")
}
