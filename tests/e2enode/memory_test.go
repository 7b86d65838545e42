package e2enode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

var density = flag.Bool("density", false, "Also measure 1, 10 and 30 injected pods on the node.")

const smallSettings = "../../manifests/components/small/settings.env"

// Each of the five sidecars has a fifth of 256 MiB, and no other has room to spare for it.
func TestFiveSidecarsWithTheSettingsForSmallNodesNeed256MiB(t *testing.T) {
	s := newSite(t, "small")
	text, err := os.ReadFile(smallSettings)
	s.try(err)
	set, unset := map[string]string{}, map[string]any{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		set[key], unset[key] = value, nil
	}
	s.settings(set)
	t.Cleanup(func() { s.settings(unset) })
	s.try(s.objects(2000))
	s.until("the injector has the settings", func(ctx context.Context) error {
		p, err := testEnv.Client().CoreV1().Pods(s.namespace).Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "dry", Annotations: map[string]string{"rockpool.dev/inject": "true"}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: programsImage}}},
		}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			return err
		}
		for _, c := range p.Spec.InitContainers {
			if limit := c.Resources.Limits.Memory().String(); limit != set["memory_limit"] {
				return fmt.Errorf("%s has the limit %s", c.Name, limit)
			}
		}
		return nil
	})
	pods := s.informers(5, "configmaps.v1.")
	testEnv.node.Link.Cut()
	for _, p := range pods {
		p.linkIs("offline")
		p.kill("app")
	}
	for _, p := range pods {
		p.sees("app", "synced", `"count":20`) // 2000 and some more
	}
	for _, p := range pods {
		now, err := testEnv.Client().CoreV1().Pods(s.namespace).Get(s.ctx, p.Name, metav1.GetOptions{})
		s.try(err)
		for _, c := range now.Status.InitContainerStatuses {
			if c.RestartCount > 0 {
				t.Errorf("%s of %s has restarted: %+v", c.Name, p.Name, c.LastTerminationState)
			}
		}
		m := p.memory()
		t.Logf("%s: %.1f MiB RSS, at most %.1f, %.1f MiB private", p.Name, mib(m.rss), mib(m.peak), mib(m.private))
	}
}

// Power comes back, and all pods of the node start at once.
func TestTheMemoryOfManyPods(t *testing.T) {
	if !*density {
		t.Skip("only with -density")
	}
	for _, n := range []int{1, 10, 30} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			s := newSite(t, fmt.Sprint("density-", n))
			s.try(s.objects(200))
			began := time.Now()
			pods := s.informers(n, "configmaps.v1.,secrets.v1.,services.v1.")
			t.Logf("%d pods are in sync after %.1f s", n, time.Since(began).Seconds())
			s.restartAll(pods)
			rest := func() (cpu time.Duration) {
				for _, p := range pods {
					cpu += p.cpu()
				}
				return cpu
			}
			before, at := rest(), time.Now()
			s.try(pause(s.ctx, time.Minute))
			share := float64(rest()-before) / float64(time.Since(at)) / float64(n)
			var sum memory
			for _, p := range pods {
				m := p.memory()
				sum.pss, sum.private, sum.rss = sum.pss+m.pss, sum.private+m.private, sum.rss+m.rss
			}
			t.Logf("%d sidecars: %.1f MiB PSS together, %.1f MiB private and %.1f MiB RSS each, %.3f %% of a core each at rest",
				n, mib(sum.pss), mib(sum.private)/float64(n), mib(sum.rss)/float64(n), 100*share)
			s.kubectl("delete", "deployments", "--all", "--wait")
		})
	}
}

// settings changes rockpool-cfg.
func (s *site) settings(change any) {
	s.t.Helper()
	patch, err := json.Marshal(map[string]any{"data": change})
	s.try(err)
	s.admin("-n", "rockpool-system", "patch", "configmap", "rockpool-cfg", "-p", string(patch))
}

// objects creates ConfigMaps, Secrets and Services, as many as 200 of the latter two.
func (s *site) objects(n int) error {
	core := testEnv.Client().CoreV1()
	group, ctx := errgroup.WithContext(s.ctx)
	group.SetLimit(16)
	for i := range n {
		name := metav1.ObjectMeta{Name: fmt.Sprintf("object-%04d", i)}
		group.Go(func() error {
			_, err := core.ConfigMaps(s.namespace).Create(ctx, &corev1.ConfigMap{ObjectMeta: name, Data: map[string]string{"text": strings.Repeat("x", 1<<10)}}, metav1.CreateOptions{})
			if i >= 200 || n > 200 {
				return err
			}
			_, err2 := core.Secrets(s.namespace).Create(ctx, &corev1.Secret{ObjectMeta: name, StringData: map[string]string{"text": strings.Repeat("x", 1<<10)}}, metav1.CreateOptions{})
			_, err3 := core.Services(s.namespace).Create(ctx, &corev1.Service{ObjectMeta: name, Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone}}, metav1.CreateOptions{})
			return errors.Join(err, err2, err3)
		})
	}
	return group.Wait()
}

// informers runs pods with informers of resources, and waits until these are in sync.
func (s *site) informers(n int, resources string) (pods []*pod) {
	s.t.Helper()
	for i := range n {
		labels := map[string]string{"app": fmt.Sprintf("informer-%02d", i)}
		_, err := testEnv.Client().AppsV1().Deployments(s.namespace).Create(s.ctx, &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Name: labels["app"]},
			Spec: appsv1.DeploymentSpec{
				Replicas: ptr.To[int32](1), Selector: &metav1.LabelSelector{MatchLabels: labels},
				Template: corev1.PodTemplateSpec{
					ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: map[string]string{"rockpool.dev/inject": "true"}},
					Spec: corev1.PodSpec{Containers: []corev1.Container{{
						Name: "app", Image: programsImage, Command: []string{"/informer", "-resource=" + resources},
					}}},
				},
			},
		}, metav1.CreateOptions{})
		s.try(err)
	}
	for i := range n {
		pods = append(pods, s.pod(fmt.Sprintf("informer-%02d", i)))
	}
	for _, p := range pods {
		p.sees("app", "synced")
	}
	return pods
}

// restartAll kills all containers at once, and waits until the informers are in sync again.
func (s *site) restartAll(pods []*pod) {
	s.t.Helper()
	began := time.Now()
	var group errgroup.Group
	for _, p := range pods {
		group.Go(func() error {
			return errors.Join(testEnv.node.Kill(s.ctx, p.Pod, "rockpool-sidecar"), testEnv.node.Kill(s.ctx, p.Pod, "app"))
		})
	}
	s.try(group.Wait())
	for _, p := range pods {
		p.seesAfter(began, "app", "synced")
	}
	s.t.Logf("all containers of %d pods were killed at once: in sync again after %.1f s, with the kubelet's pause of 10 s", len(pods), time.Since(began).Seconds())
}

// memory is the memory of a sidecar, in bytes.
type memory struct{ rss, pss, private, peak int64 }

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// memory reads /proc/PID/smaps_rollup and status (proc(5)).
func (p *pod) memory() (m memory) {
	p.site.t.Helper()
	proc := filepath.Join("/proc", strconv.Itoa(p.pid("rockpool-sidecar")))
	for name, fields := range map[string]map[string]*int64{
		"smaps_rollup": {"Rss:": &m.rss, "Pss:": &m.pss, "Private_Clean:": &m.private, "Private_Dirty:": &m.private},
		"status":       {"VmHWM:": &m.peak},
	} {
		text, err := os.ReadFile(filepath.Join(proc, name))
		p.site.try(err)
		for line := range bytes.Lines(text) {
			words := bytes.Fields(line)
			if len(words) < 2 || fields[string(words[0])] == nil {
				continue
			}
			kib, err := strconv.ParseInt(string(words[1]), 10, 64)
			p.site.try(err)
			*fields[string(words[0])] += kib << 10
		}
	}
	return m
}

// cpu is the CPU time of a sidecar, from /proc/PID/schedstat, in nanoseconds.
func (p *pod) cpu() (total time.Duration) {
	p.site.t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.pid("rockpool-sidecar")))
	p.site.try(err)
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // the thread has ended
		}
		n, err := strconv.ParseInt(string(bytes.Fields(text)[0]), 10, 64)
		p.site.try(err)
		total += time.Duration(n)
	}
	return total
}

// pause waits for a time that is measured.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
