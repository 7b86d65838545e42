package e2enode

import (
	"strings"
	"testing"

	"rockpool.dev/tests/bed/node"
)

func TestTheSidecarRunsBeforeTheFirstAndAfterTheLastContainer(t *testing.T) {
	s := newSite(t, "order")
	s.kubectl("apply", "-f", "testdata/ordered.yaml")
	p := s.pod("ordered")
	p.sees("main", "running")

	// The init container sends one request, which must succeed at the first attempt.
	p.sees("migrate", `"name": "greeting"`, `"value": "hello"`)
	for _, c := range p.Status.InitContainerStatuses {
		if c.Name == "migrate" && c.RestartCount != 0 {
			t.Errorf("the init container was started %d times", c.RestartCount+1)
		}
	}

	if out := s.kubectl("logs", "ordered"); out != "running\n" {
		t.Errorf("kubectl logs prints %q, want only the output of the app", out)
	}
	if out := s.kubectl("exec", "ordered", "--", "/bin/sh", "-c", "tr '\\0' ' ' </proc/1/cmdline"); !strings.HasPrefix(out, "/bin/sh -c trap") {
		t.Errorf("kubectl exec runs in the container of %q, want the app's", out)
	}

	app, sidecar := s.log(p, "main"), s.log(p, "rockpool-sidecar")
	s.kubectl("delete", "pod", "ordered", "--timeout=60s")
	said, err := app.Lines()
	s.try(err)
	last := said[len(said)-1]
	if !strings.Contains(last.Text, `"name": "greeting"`) {
		t.Errorf("after SIGTERM the app got %q from the API", last.Text)
	}
	ended, err := sidecar.Lines()
	s.try(err)
	if end := ended[len(ended)-1]; end.Time.Before(last.Time) {
		t.Errorf("the sidecar's last line, %q, is of %s, before the app's of %s", end.Text, end.Time, last.Time)
	}
}

// log opens the log of a container until the end of the test.
func (s *site) log(p *pod, container string) *node.Log {
	s.t.Helper()
	log, err := testEnv.node.Log(p.Pod, container)
	s.try(err)
	s.t.Cleanup(func() { log.Close() })
	return log
}
