package e2enode

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAJobEndsOfflineAndIsCompleteWhenTheLinkIsBack(t *testing.T) {
	s := newSite(t, "job")
	s.kubectl("apply", "-f", "testdata/job.yaml")
	p := s.pod("late")
	p.sees("app", `"name": "greeting"`)
	p.recorded()

	testEnv.node.Link.Cut()
	p.linkIs("offline")
	s.try(syscall.Kill(p.pid("app"), syscall.SIGUSR1))
	s.until("the sidecar ends with the app", func(ctx context.Context) error {
		if pid, err := testEnv.node.PID(ctx, p.Pod, "rockpool-sidecar"); err == nil {
			return fmt.Errorf("it still runs as process %d", pid)
		}
		return nil
	})
	printed, err := lines(p.Pod, "app")
	s.try(err)
	if len(printed) != 2 || printed[0].Text != printed[1].Text {
		t.Errorf("the app printed %v, want the same answer online and offline", printed)
	}
	testEnv.node.Link.Restore()
	s.completes("late")
}

// completes waits until a Job is complete. Its pod ends only if the sidecar ends after the app.
func (s *site) completes(job string) {
	s.t.Helper()
	s.until("the Job completes", func(ctx context.Context) error {
		got, err := testEnv.Client().BatchV1().Jobs(s.namespace).Get(ctx, job, metav1.GetOptions{})
		if err == nil && got.Status.Failed > 0 {
			s.t.Fatalf("the Job has failed: %+v", got.Status)
		}
		if err == nil && got.Status.Succeeded != 1 {
			err = errors.New("its pod runs")
		}
		return err
	})
}
