package zoo

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A running program is one whose pod is on the node.
type running struct {
	Program
	bed    Bed
	pod    *corev1.Pod
	kills  int // of the app's container, by the story
	result *Result
}

const sidecar = "rockpool-sidecar"

// find finds the program's pod. It must have a sidecar.
func (r *running) find(ctx context.Context) error {
	pods, err := r.bed.Client().CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + r.Name})
	if err != nil {
		return err
	}
	if len(pods.Items) != 1 {
		return fmt.Errorf("%d pods of %s, want 1", len(pods.Items), r.Name)
	}
	pod := &pods.Items[0]
	if !slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == sidecar }) {
		return fmt.Errorf("the pod of %s has no sidecar: %v", r.Name, pod.Annotations)
	}
	if pod.Status.PodIP == "" {
		return fmt.Errorf("the pod of %s has no address: %s", r.Name, pod.Status.Phase)
	}
	r.pod = pod
	return nil
}

// kill kills a container and waits for its next start.
func (r *running) kill(ctx context.Context, container string) error {
	if container == "app" {
		r.kills++
	}
	return r.bed.Node.Kill(ctx, r.pod, container)
}

// alive returns an error if the program has ended by itself.
func (r *running) alive() error {
	attempts, err := r.bed.Node.Attempt(r.pod, "app")
	if err == nil && attempts > r.kills {
		err = fmt.Errorf("it has ended by itself %d times", attempts-r.kills)
	}
	return err
}

// printed looks for a line with all words that the program has printed after a time.
func (r *running) printed(after time.Time, words ...string) error {
	lines, err := r.bed.Node.Lines(r.pod, "app")
	if err != nil {
		return err
	}
	last := ""
	for _, line := range lines {
		if !line.Time.After(after) {
			continue
		}
		last = line.Text
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(last, w) }) {
			return nil
		}
	}
	return fmt.Errorf("no line with %q; the last of %d is %q", words, len(lines), last)
}

// tail is the end of a container's output.
func (r *running) tail(container string) string {
	lines, err := r.bed.Node.Lines(r.pod, container)
	if err != nil {
		return err.Error()
	}
	text := ""
	for _, line := range lines[max(0, len(lines)-40):] {
		text += line.Time.Format(time.StampMilli) + " " + line.Text + "\n"
	}
	return text
}

// address is a port of the program's pod.
func (r *running) address(port string) string { return net.JoinHostPort(r.pod.Status.PodIP, port) }

// get asks a port of the program over HTTP. host is that of the request; empty: the address.
func (r *running) get(ctx context.Context, port, path, host string) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.address(port)+path, nil)
	if err != nil {
		return 0, "", err
	}
	req.Host, req.Close = host, true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(content), err
}
