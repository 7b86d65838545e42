package e2enode

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"
)

func TestWorkloadsOfEveryKindSurviveAnOutage(t *testing.T) {
	s := newSite(t, "story")
	s.kubectl("apply", "-f", "testdata/workloads.yaml")
	web, agent, db := s.pod("web"), s.pod("agent"), s.pod("db")
	running := []*pod{web, agent, db}
	web.sees("app", "present", "greeting", "hello")
	for _, p := range running {
		p.sees("app", "synced")
	}
	web.sees("asker", "ConfigMap", "hello")
	s.completes("report")

	testEnv.node.Link.Cut()
	for _, p := range running {
		p.linkIs("offline")
	}
	s.configMap("hello again") // the node cannot know this value
	for _, p := range running {
		p.kill("app")
		p.sees("app", "present", "greeting")
		p.sees("app", "synced")
	}
	for _, p := range running {
		p.kill("rockpool-sidecar")
		p.kill("app")
		p.sees("app", "present", "greeting")
		p.sees("app", "synced")
	}
	web.sees("app", "present", `"hello"`)
	web.seesAfter(time.Now(), "asker", "ConfigMap", `"hello"`)

	untouched := []*pod{web, agent}
	before := pids(untouched)
	testEnv.node.StopKubelet()
	testEnv.node.StopContainerd()
	s.try(testEnv.node.StartContainerd(s.ctx))
	s.try(testEnv.node.StartKubelet(s.ctx))
	web.seesAfter(time.Now(), "asker", "ConfigMap", `"hello"`)
	if after := pids(untouched); after != before {
		t.Errorf("processes of the pods %s before containerd and the kubelet were restarted, %s after", before, after)
	}

	// A kubelet that has not reached the API server since its start knows no pods and starts none.
	died, err := testEnv.node.Attempt(db.Pod, "app")
	s.try(err)
	s.try(syscall.Kill(db.pid("app"), syscall.SIGKILL))

	testEnv.node.Link.Restore()
	s.until("the kubelet restarts the killed container", func(context.Context) error {
		now, err := testEnv.node.Attempt(db.Pod, "app")
		if err == nil && now == died {
			err = errors.New("it is not started again")
		}
		return err
	})
	db.sees("app", "synced")
	for _, p := range running {
		p.linkIs("online")
	}
	agent.sees("app", "updated", "greeting")
	web.sees("app", "updated", "hello again")
	web.seesAfter(time.Now(), "asker", "ConfigMap", "hello again")
	s.try(testEnv.node.AwaitReady(s.ctx))
	for _, p := range running {
		if now := s.pod(p.Labels["app"]); now.UID != p.UID {
			t.Errorf("%s was replaced by %s", p.Name, now.Name)
		}
	}
	if after := pids(untouched); after != before {
		t.Errorf("processes of the pods %s before the link was back, %s after", before, after)
	}
}

// pids are the processes of the apps and sidecars.
func pids(pods []*pod) string {
	all := ""
	for _, p := range pods {
		all += fmt.Sprintf("%s %d %d; ", p.Name, p.pid("app"), p.pid("rockpool-sidecar"))
	}
	return all
}
