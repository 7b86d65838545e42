package e2enode

import (
	"context"
	"errors"
	"os/exec"
	"testing"
	"time"
)

// Many programs do not read KUBERNETES_SERVICE_PORT: they use the name of the API server's Service,
// or port 443 of its address.
func TestTheAPIServersNameAndPort443MeanTheSidecar(t *testing.T) {
	s := newSite(t, "names")
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skipf("NOT VERIFIED: pods use the machine's curl: %v", err)
	}
	s.kubectl("apply", "-f", "testdata/names.yaml")
	p := s.pod("names")
	all := func(value string) {
		t.Helper()
		after := time.Now()
		for _, base := range []string{"kubernetes:", "kubernetes.default:", "kubernetes.default.svc:", "kubernetes.default.svc.cluster.local:", "address:", "port:"} {
			p.seesAfter(after, "app", base+" {", `"value":"`+value+`"`)
		}
		p.seesAfter(after, "app", "fluent-bit: {", `"kind":"Pod"`, `"name":"`+p.Name+`"`)
	}
	all("hello")
	p.recorded()
	s.until("the pod's own object is recorded", func(ctx context.Context) error {
		got, err := p.sql(ctx, "SELECT count(*) FROM v_object WHERE name = '"+p.Name+"'")
		if err == nil && got == "0" {
			err = errors.New("it is not there")
		}
		return err
	})

	testEnv.node.Link.Cut()
	p.linkIs("offline")
	p.kill("app")
	all("hello")
	p.kill("rockpool-sidecar")
	all("hello")
	s.configMap("changed")
	testEnv.node.Link.Restore()
	all("changed")

	// A pod that needs the port keeps it, although it asks for the names.
	ingress := s.pod("ingress")
	ingress.sees("server", "Serving HTTP on 0.0.0.0 port 443")
	ingress.sees("app", "updated", "changed")
}
