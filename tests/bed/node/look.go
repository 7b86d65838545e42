package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// PID is the process id of a running container, as this program sees it. It asks containerd, so
// it works without the API server and without the kubelet.
func (n *Node) PID(ctx context.Context, pod *corev1.Pod, container string) (int, error) {
	ids, err := n.Ctr(ctx, "containers", "ls", "-q", fmt.Sprintf("labels.%q==%s,labels.%q==%s",
		"io.kubernetes.pod.uid", pod.UID, "io.kubernetes.container.name", container))
	if err != nil {
		return 0, err
	}
	tasks, err := n.Ctr(ctx, "tasks", "ls")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(tasks) {
		if f := strings.Fields(line); len(f) == 3 && f[2] == "RUNNING" && strings.Contains(ids, f[0]) {
			return strconv.Atoi(f[1])
		}
	}
	return 0, fmt.Errorf("container %s of pod %s/%s is not running", container, pod.Namespace, pod.Name)
}

// A Line is one line that a container has printed.
type Line struct {
	Time time.Time
	Text string
}

// Attempt is how often a container has been started again; -1 before its first start.
func (n *Node) Attempt(pod *corev1.Pod, container string) (int, error) {
	entries, err := os.ReadDir(filepath.Join(podLogs, logDirectory(pod), container))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	last := -1
	for _, e := range entries {
		number, found := strings.CutSuffix(e.Name(), ".log") // others are rotated
		if attempt, err := strconv.Atoi(number); found && err == nil {
			last = max(last, attempt)
		}
	}
	return last, nil
}

// A Log is what one start of a container prints. It stays readable when the kubelet has removed it.
type Log struct{ file *os.File }

// Log opens the log of the last start of a container on the node's disk: that needs neither the
// kubelet nor the link. The caller closes it.
func (n *Node) Log(pod *corev1.Pod, container string) (*Log, error) {
	attempt, err := n.Attempt(pod, container)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(filepath.Join(podLogs, logDirectory(pod), container, strconv.Itoa(attempt)+".log"))
	if err != nil {
		return nil, err
	}
	return &Log{file: file}, nil
}

// Lines are all lines so far.
func (l *Log) Lines() ([]Line, error) {
	if _, err := l.file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(l.file)
	if err != nil {
		return nil, err
	}
	return parseLog(string(text))
}

// Close closes the log.
func (l *Log) Close() error { return l.file.Close() }

func logDirectory(pod *corev1.Pod) string {
	return fmt.Sprintf("%s_%s_%s", pod.Namespace, pod.Name, pod.UID)
}

// parseLog reads the format of CRI logs: time, stream, F or P for a full or partial line, text.
// A last line that is not whole yet is left out.
func parseLog(text string) (lines []Line, err error) {
	partial := ""
	for raw := range strings.Lines(text) {
		if !strings.HasSuffix(raw, "\n") {
			break
		}
		fields := strings.SplitN(strings.TrimSuffix(raw, "\n"), " ", 4)
		if len(fields) < 4 {
			return lines, fmt.Errorf("not a line of a CRI log: %q", raw)
		}
		at, err := time.Parse(time.RFC3339Nano, fields[0])
		if err != nil {
			return lines, fmt.Errorf("CRI log: %w", err)
		}
		partial += fields[3]
		if fields[2] == "P" {
			continue
		}
		lines = append(lines, Line{Time: at, Text: partial})
		partial = ""
	}
	return lines, nil
}

// ProjectedVolumes are the directories of a pod's projected volumes on the node's disk that the
// kubelet has filled, as it does before it starts the pod.
func (n *Node) ProjectedVolumes(pod *corev1.Pod) ([]string, error) {
	return n.volumesWith(pod, "..data")
}

// TokenVolumes are those of them with a token.
func (n *Node) TokenVolumes(pod *corev1.Pod) ([]string, error) { return n.volumesWith(pod, "token") }

func (n *Node) volumesWith(pod *corev1.Pod, name string) ([]string, error) {
	found, err := filepath.Glob(filepath.Join(kubeletRoot, "pods", string(pod.UID), "volumes/kubernetes.io~projected/*", name))
	for i := range found {
		found[i] = filepath.Dir(found[i])
	}
	return found, err
}
