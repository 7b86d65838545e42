package e2enode

import (
	"context"
	"errors"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAPodInKubeSystemAnswersWithTheLinkDown(t *testing.T) {
	s := newSite(t, metav1.NamespaceSystem)
	t.Cleanup(func() {
		for _, args := range [][]string{
			{"apply", "-k", "testdata/install"},
			{"-n", "rockpool-system", "rollout", "status", "deployment/rockpool-injector", "--timeout=90s"},
			{"-n", s.namespace, "delete", "--wait=false", "deployment/dns", "configmap/greeting", "secret/hush"},
		} {
			s.admin(args...)
		}
	})
	s.admin("apply", "-k", "testdata/kubesystem")
	s.admin("-n", "rockpool-system", "rollout", "status", "deployment/rockpool-injector", "--timeout=90s")
	// The failurePolicy is Ignore, so a pod that comes before the webhook is called is not injected.
	s.until("a pod of the Deployment is injected", func(ctx context.Context) error {
		s.kubectl("apply", "-f", "testdata/kubesystem.yaml")
		pod, err := s.find(ctx, "dns")
		if err != nil {
			return err
		}
		if pod.Annotations["rockpool.dev/status"] == "" {
			s.kubectl("delete", "deployment", "dns")
			return errors.New("it is not injected")
		}
		return nil
	})
	p := s.pod("dns")
	p.sees("app", "synced")
	testEnv.node.Link.Cut()
	p.linkIs("offline")
	s.configMap("hello again") // the node cannot know this value
	for range 2 {
		p.kill("app")
		p.sees("app", "present", "greeting", `"hello"`)
		p.sees("app", "synced")
		p.kill("rockpool-sidecar")
	}
	testEnv.node.Link.Restore()
	p.sees("app", "updated", "hello again")
}
