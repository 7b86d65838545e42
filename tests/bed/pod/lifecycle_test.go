package pod

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"rockpool.dev/tests/eventually"
)

func TestContainersStartInOrderAndWaitForSidecarHooks(t *testing.T) {
	p := runPod(t, `
spec:
  volumes: [{name: shared, emptyDir: {}}]
  initContainers:
  - name: first
    image: none
    command: [sh, -c, "sleep 0.2; echo first >>/shared/order"]
    volumeMounts: [{name: shared, mountPath: /shared}]
  - name: sidecar
    image: none
    restartPolicy: Always
    command: [sh, -c, "echo sidecar >>/shared/order; trap 'echo sidecar ends; exit' TERM; while :; do sleep 0.05; done"]
    lifecycle: {postStart: {exec: {command: [sh, -c, "sleep 0.3; echo hook >>/shared/order"]}}}
    volumeMounts: [{name: shared, mountPath: /shared}]
  - name: last
    image: none
    command: [sh, -c, "echo last >>/shared/order"]
    volumeMounts: [{name: shared, mountPath: /shared}]
  containers:
  - name: app
    image: none
    command: [sh, -c, "echo app >>/shared/order; exec sleep 1000"]
    volumeMounts: [{name: shared, mountPath: /shared}]
`, Options{GracePeriod: 300 * time.Millisecond})
	wantRunning(t, p)
	eventually.NoError(t, "all containers have started, in order", func() error {
		got := strings.Fields(output(t, p, "app", "cat /shared/order"))
		if want := "first sidecar hook last app"; strings.Join(got, " ") != want {
			return fmt.Errorf("order %v, want %s", got, want)
		}
		return nil
	})
}

func TestAPodEndsWithItsContainersAndStopsItsSidecars(t *testing.T) {
	p := runPod(t, `
spec:
  restartPolicy: OnFailure
  volumes: [{name: shared, emptyDir: {medium: Memory}}]
  initContainers:
  - name: sidecar
    image: none
    restartPolicy: Always
    command: [sh, -c, "trap 'echo asked to end; exit 0' TERM; touch /shared/ready; while :; do sleep 0.05; done"]
    volumeMounts: [{name: shared, mountPath: /shared}]
  containers:
  - name: job
    image: none
    command: [sh, -c, "until test -e /shared/ready; do sleep 0.05; done; test -e /shared/again && exit 0; touch /shared/again; exit 7"]
    volumeMounts: [{name: shared, mountPath: /shared}]
`, Options{RestartBackoff: 10 * time.Millisecond})
	phase, err := p.WaitDone(limited(t))
	if err != nil || phase != corev1.PodSucceeded {
		t.Fatalf("phase %s, %v, want Succeeded", phase, err)
	}
	if status, _ := p.Status("job"); status.RestartCount != 1 {
		t.Errorf("job was restarted %d times, want once", status.RestartCount)
	}
	if log, _ := p.Logs("sidecar"); !strings.Contains(log, "asked to end") {
		t.Errorf("output of the sidecar %q, want \"asked to end\"", log)
	}
}

func TestWaitRunningReportsAFailedInitContainerWithItsOutput(t *testing.T) {
	p := runPod(t, `
spec:
  restartPolicy: Never
  initContainers: [{name: broken, image: none, command: [sh, -c, "echo no such luck; exit 3"]}]
  containers: [{name: app, image: none, command: [sleep, "1000"]}]
`, Options{})
	err := p.WaitRunning(limited(t))
	if err == nil || !strings.Contains(err.Error(), "no such luck") || !strings.Contains(err.Error(), "broken ended with 3") {
		t.Errorf("wait: %v, want the exit code and output of the init container", err)
	}
}

func TestWaitRunningFailsAtOnceForContainersThatCannotStart(t *testing.T) {
	tests := []struct{ name, container, want string }{
		{"a program that does not exist", `{name: app, image: none, command: [no-such-program]}`, "executable file not found"},
		{"no command at all", `{name: app, image: none}`, "no command"},
		{"a ConfigMap that does not exist", `{name: app, image: none, command: [sh], env: [{name: A, valueFrom: {configMapKeyRef: {name: nope, key: a}}}]}`, `"nope" not found`},
		{"root with runAsNonRoot", `{name: app, image: none, command: [sh], securityContext: {runAsNonRoot: true}}`, "runAsNonRoot"},
		{"a mount point below a directory of the host", `{name: app, image: none, command: [sh], volumeMounts: [{name: v, mountPath: /usr/none/x}]}`, "read-only file system"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := runPod(t, "spec: {volumes: [{name: v, emptyDir: {}}], containers: ["+test.container+"]}", Options{})
			if err := p.WaitRunning(limited(t)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("wait: %v, want %q", err, test.want)
			}
		})
	}
}

func TestKilledAndRestartedContainersKeepTheVolumes(t *testing.T) {
	p := runPod(t, `
spec:
  volumes: [{name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}]
  initContainers:
  - name: sidecar
    image: none
    restartPolicy: Always
    command: [sh, -c, "echo run >>/memory/runs; trap 'exit 0' TERM; while :; do sleep 0.05; done"]
    volumeMounts: [{name: memory, mountPath: /memory}]
  containers:
  - name: app
    image: none
    command: [sh, -c, "trap 'exit 0' TERM; while :; do sleep 0.05; done"]
    volumeMounts: [{name: memory, mountPath: /memory}]
`, Options{RestartBackoff: 10 * time.Millisecond, GracePeriod: time.Second})
	wantRunning(t, p)
	before, err := p.PID("sidecar")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.KillContainer("sidecar", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := p.WaitRestarted(limited(t), "sidecar", 1); err != nil {
		t.Fatal(err)
	}
	if status, _ := p.Status("sidecar"); status.ExitCode != 137 {
		t.Errorf("exit code %d after SIGKILL, want 137", status.ExitCode)
	}
	if err := p.RestartContainer(limited(t), "sidecar"); err != nil {
		t.Fatal(err)
	}
	if after, err := p.PID("sidecar"); err != nil || after == before {
		t.Errorf("process %d, %v, the same as before", after, err)
	}
	eventually.NoError(t, "the sidecar has run three times", func() error {
		if runs := output(t, p, "app", "grep -c run /memory/runs"); runs != "3" {
			return fmt.Errorf("%s runs, want 3", runs)
		}
		return nil
	})
	if err := p.RestartContainer(limited(t), "app"); err != nil {
		t.Fatal(err)
	}
	if size := output(t, p, "app", "df --output=size /memory | tail -1"); size != "1024" {
		t.Errorf("volume of %s KiB, want 1024", size)
	}
	if _, err := p.Exec(limited(t), "nobody", "true"); err == nil || !strings.Contains(err.Error(), "there are sidecar, app") {
		t.Errorf("unknown container: %v", err)
	}
}

func TestExecPassesInputAndOutputAndEndsWithItsContext(t *testing.T) {
	p := runPod(t, "spec: {containers: [{name: app, image: none, command: [sleep, '1000']}]}", Options{GracePeriod: time.Millisecond})
	wantRunning(t, p)
	var stdout strings.Builder
	code, err := p.ExecStream(limited(t), "app", ExecOptions{Argv: []string{"sh", "-c", "cat; kill -9 $$"}, Stdin: strings.NewReader("through"), Stdout: &stdout})
	if err != nil || code != 137 || stdout.String() != "through" {
		t.Errorf("exit code %d, %v, output %q", code, err, stdout.String())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	started := time.Now()
	if _, err := p.Exec(ctx, "app", "sh", "-c", "sleep 1000 & sleep 1000"); err == nil || time.Since(started) > 5*time.Second {
		t.Errorf("a command whose context has ended: %v, after %s", err, time.Since(started))
	}
	if first := output(t, p, "app", "tr '\\0' ' ' </proc/1/cmdline"); first != "sleep 1000" {
		t.Errorf("process 1 is %q, want the container's", first)
	}
}
