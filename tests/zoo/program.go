package zoo

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"rockpool.dev/tests/bed/cluster"
	"rockpool.dev/tests/bed/node"
)

// A Program is a program of the zoo.
type Program struct {
	Name      string // also of its pod, service account and role
	Language  string
	Client    string // the library with which it talks to the API
	Transport string // how it follows changes
	Function  string // which it must show in each stage
	Note      string // how it differs from its usual build or setting, a sentence; empty: in nothing
	Quick     bool   // it is built and checked within a minute

	source source
	rules  []rbacv1.PolicyRule
	files  map[string]string // of a ConfigMap, below filesPath
	pod    func(Bed, Installed) corev1.PodSpec
	// shows asks the program for the objects, in its own function. The error says what it shows
	// instead of value.
	shows func(context.Context, *running, question) error
}

// A question asks whether a program shows the objects with a value.
type question struct {
	value string
	after time.Time // what was printed before does not count
}

// Bed is the node on which the zoo lives, with Rockpool installed.
type Bed struct {
	*cluster.ControlPlane
	Node  *node.Node
	Image string // an image with an empty root, in which all programs run
}

// Installed is a program on this machine.
type Installed struct {
	Skipped string // the reason why the program is not there; empty: it is
	Version string
	Path    string // of the executable
}

// A source builds or finds a program. It may write to directory, which lives as long as the node.
type source func(ctx context.Context, directory string, progress io.Writer) (Installed, error)

// filesPath is the directory of a program's files in its container.
const filesPath = "/etc/zoo"

// machine are the directories of this machine that programs in scripting languages need. Debian
// keeps the settings of its JDK in /etc/java-*.
var machine = slices.Concat([]string{"/usr", "/bin", "/lib", "/lib64"}, match("/etc/java-*"))

// match is filepath.Glob with a constant pattern.
func match(pattern string) []string {
	paths, err := filepath.Glob(pattern)
	if err != nil {
		panic(err)
	}
	return paths
}

// spec is a pod with one container, app, that sees directories of this machine under the same
// paths.
func spec(b Bed, directories []string, command ...string) corev1.PodSpec {
	app := corev1.Container{Name: "app", Image: b.Image, Command: command}
	pod := corev1.PodSpec{}
	for _, directory := range directories {
		if _, err := os.Stat(directory); err != nil {
			continue // not every machine has /lib64
		}
		name := "host" + strings.ToLower(strings.NewReplacer("/", "-", "_", "-", ".", "-").Replace(directory))
		if len(name) > 63 {
			name = "host" + strings.TrimLeft(name[len(name)-50:], "-")
		}
		pod.Volumes = append(pod.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: directory}}})
		app.VolumeMounts = append(app.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: directory, ReadOnly: true})
	}
	pod.Containers = []corev1.Container{app}
	return pod
}

// executable is a pod with one container that runs a program without libraries.
func executable(args ...string) func(Bed, Installed) corev1.PodSpec {
	return func(b Bed, i Installed) corev1.PodSpec {
		return spec(b, []string{filepath.Dir(i.Path)}, slices.Concat([]string{i.Path}, args)...)
	}
}

// script is a pod with one container that runs a program with the libraries of this machine.
func script(args ...string) func(Bed, Installed) corev1.PodSpec {
	return func(b Bed, i Installed) corev1.PodSpec {
		return spec(b, machine, slices.Concat([]string{i.Path}, args)...)
	}
}

// readable is a rule that lets a program get, list and watch resources of a group.
func readable(group string, resources ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: resources, Verbs: []string{"get", "list", "watch"}}
}

// beyond is the directory of an executable, if pods of scripts do not see it anyway.
func beyond(path string) []string {
	if strings.HasPrefix(path, "/usr/") {
		return nil
	}
	return []string{filepath.Dir(path)}
}
