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

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// PID returns the process id of a running container in the namespace of this program. It asks
// containerd, so it needs neither the API server nor the kubelet.
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

// A Line is one line of a container's output.
type Line struct {
	Time time.Time
	Text string
}

// Attempt returns how often a container has been restarted, or -1 before its first start.
func (n *Node) Attempt(pod *corev1.Pod, container string) (int, error) {
	entries, err := os.ReadDir(filepath.Join(podLogs, logDirectory(pod), container))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	last := -1
	for _, e := range entries {
		number, found := strings.CutSuffix(e.Name(), ".log") // rotated logs have another suffix
		if attempt, err := strconv.Atoi(number); found && err == nil {
			last = max(last, attempt)
		}
	}
	return last, nil
}

// Kill kills a running container with SIGKILL and waits until the kubelet has started it again.
func (n *Node) Kill(ctx context.Context, pod *corev1.Pod, container string) error {
	before, err := n.Attempt(pod, container)
	if err != nil {
		return err
	}
	pid, err := n.PID(ctx, pod, container)
	if err != nil {
		return err
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return fmt.Errorf("kill container %s of pod %s/%s: %w", container, pod.Namespace, pod.Name, err)
	}
	err = wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, startTimeout, true, func(context.Context) (bool, error) {
		now, err := n.Attempt(pod, container)
		return now > before, err
	})
	if err != nil {
		return fmt.Errorf("the kubelet does not restart container %s of pod %s/%s: %w", container, pod.Namespace, pod.Name, err)
	}
	return nil
}

// Lines returns all lines of a container since its last start, and none before its first.
func (n *Node) Lines(pod *corev1.Pod, container string) ([]Line, error) {
	log, err := n.Log(pod, container)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer log.Close()
	return log.Lines()
}

// A Log is the output of a container from one start on. It stays readable after the kubelet has
// removed the file.
type Log struct{ file *os.File }

// Log opens the log of the last start of a container. It reads the node's disk, so it needs neither
// the kubelet nor the link. The caller closes it.
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

// Lines returns all lines so far.
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

// parseLog parses the format of CRI logs: time, stream, F or P for a full or partial line, text.
// It ignores an incomplete last line.
func parseLog(text string) (lines []Line, err error) {
	partial := ""
	for raw := range strings.Lines(text) {
		if !strings.HasSuffix(raw, "\n") {
			break
		}
		fields := strings.SplitN(strings.TrimSuffix(raw, "\n"), " ", 4)
		if len(fields) < 4 {
			return lines, fmt.Errorf("not a CRI log line: %q", raw)
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

// ProjectedVolumes returns the directories, on the node's disk, of those projected volumes of a pod
// that the kubelet has filled. It fills them before it starts the pod.
func (n *Node) ProjectedVolumes(pod *corev1.Pod) ([]string, error) {
	return n.volumesWith(pod, "..data")
}

// TokenVolumes returns the ProjectedVolumes that have a token.
func (n *Node) TokenVolumes(pod *corev1.Pod) ([]string, error) { return n.volumesWith(pod, "token") }

func (n *Node) volumesWith(pod *corev1.Pod, name string) ([]string, error) {
	found, err := filepath.Glob(filepath.Join(kubeletRoot, "pods", string(pod.UID), "volumes/kubernetes.io~projected/*", name))
	for i := range found {
		found[i] = filepath.Dir(found[i])
	}
	return found, err
}
