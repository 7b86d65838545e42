package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/version"
)

// Environment variables that FindTools reads.
const (
	// AssetsVariable names a directory with kube-apiserver, etcd and kubectl; the name is
	// the one that envtest of controller-runtime made common.
	AssetsVariable = "KUBEBUILDER_ASSETS"
	// ToolsVariable names the directory that built tools are kept in, instead of
	// "rockpool-tools" below os.UserCacheDir.
	ToolsVariable = "ROCKPOOL_TOOLS_DIR"
)

// Tools are the paths of the programs that a control plane is made of.
type Tools struct {
	APIServer string
	Etcd      string
	Kubectl   string
}

// NodeTools are the paths of the programs that a node is made of, and of the controllers that give
// it something to do, each by its name.
type NodeTools map[string]string

// A tool is one program: how to tell a usable one, and how to build it.
type tool struct {
	name        string         // name of the executable
	module      string         // directory of its module, relative to the root of the checkout
	pkg         string         // main package in that module
	tags        string         // build tags; with any, cgo is on
	needs       string         // Debian packages that its build needs
	versionArgs []string       // arguments that make it print its version and exit with 0
	version     *regexp.Regexp // finds the version in that output; nil if any version will do
	minimum     string         // the oldest usable version
	why         string         // what is wrong with older ones
}

// Modules of the tools, outside the main module.
const (
	kubernetesModule = "tests/tools"
	// That of containerd is separate, because it requires other versions of the Kubernetes libraries.
	containerdModule = "tests/bed/node/build"
)

var controlPlaneTools = []tool{
	{
		name: "etcd", module: kubernetesModule, pkg: "go.etcd.io/etcd/server/v3", versionArgs: []string{"--version"},
		version: regexp.MustCompile(`etcd Version: (\S+)`), minimum: "3.5.13",
		why: "before it WatchList falls back to LIST silently",
	},
	{
		name: "kube-apiserver", module: kubernetesModule, pkg: "k8s.io/kubernetes/cmd/kube-apiserver", versionArgs: []string{"--version"},
		version: regexp.MustCompile(`Kubernetes (v\S+)`), minimum: "1.34.0",
		why: "before it WatchList is not on by default",
	},
	{
		// Some machines have a dispatcher of this name, which picks a kubectl of its own:
		// whatever runs is the kubectl that people there use.
		name: "kubectl", module: kubernetesModule, pkg: "k8s.io/kubernetes/cmd/kubectl", versionArgs: []string{"version", "--client"},
	},
}

// nodeTools are built only when a node is asked for.
var nodeTools = []tool{
	kubernetesTool("kubelet", "before it sidecar containers are not stable"),
	kubernetesTool("kube-controller-manager", "it would be older than the rest"),
	kubernetesTool("kube-scheduler", "it would be older than the rest"),
	containerdTool("containerd", "--version", `containerd/v2 v?(\S+)`),
	containerdTool("containerd-shim-runc-v2", "-v", `Version:\s+v?(\S+)`),
	containerdTool("ctr", "--version", `containerd/v2 v?(\S+)`),
	{
		name: "runc", module: containerdModule, pkg: "github.com/opencontainers/runc", tags: "seccomp",
		needs: "gcc libc6-dev libseccomp-dev pkg-config", versionArgs: []string{"--version"},
		// A runc without libseccomp does not print this line, and runs no container with a profile.
		version: regexp.MustCompile(`(?s)runc version (\S+).*libseccomp:`), minimum: "1.2.0",
		why: "containerd 2 wants it",
	},
	pluginTool("main/ptp"),
	pluginTool("ipam/host-local"),
}

func kubernetesTool(name, why string) tool {
	return tool{
		name: name, module: kubernetesModule, pkg: "k8s.io/kubernetes/cmd/" + name, versionArgs: []string{"--version"},
		version: regexp.MustCompile(`Kubernetes (v\S+)`), minimum: "1.33.0", why: why,
	}
}

func containerdTool(name, versionArg, version string) tool {
	return tool{
		name: name, module: containerdModule, pkg: "github.com/containerd/containerd/v2/cmd/" + name, versionArgs: []string{versionArg},
		version: regexp.MustCompile(version), minimum: "2.0.0", why: "kubelet 1.36 wants containerd 2",
	}
}

// pluginTool is a CNI plugin. Run without CNI_COMMAND it tells about itself.
func pluginTool(directory string) tool {
	name := path.Base(directory)
	return tool{
		name: name, module: containerdModule, pkg: "github.com/containernetworking/plugins/plugins/" + directory,
		version: regexp.MustCompile(`CNI ` + name + ` plugin.*(?s:.*)versions supported:.* (1\.\S+)`), minimum: "1.0.0",
		why: "the configuration of the node is of that version",
	}
}

// FindTools finds each tool in $KUBEBUILDER_ASSETS, then in $PATH, and builds those that
// are in neither, or are unusable, from the modules of tools into a cache directory. It
// tells progress on w, since the first build takes minutes. Several processes may call it at
// once: one builds, the others wait for it.
func FindTools(ctx context.Context, w io.Writer) (Tools, error) {
	paths, err := findTools(ctx, controlPlaneTools, w)
	if err != nil {
		return Tools{}, err
	}
	return Tools{APIServer: paths["kube-apiserver"], Etcd: paths["etcd"], Kubectl: paths["kubectl"]}, nil
}

// FindNodeTools does as FindTools for the programs of a node.
func FindNodeTools(ctx context.Context, w io.Writer) (NodeTools, error) {
	return findTools(ctx, nodeTools, w)
}

func findTools(ctx context.Context, tools []tool, w io.Writer) (map[string]string, error) {
	paths := map[string]string{}
	var missing []tool
	for _, t := range tools {
		path, rejected := t.find(ctx)
		for _, err := range rejected {
			fmt.Fprintf(w, "tools: not used: %v\n", err)
		}
		if path == "" {
			missing = append(missing, t)
			continue
		}
		paths[t.name] = path
	}
	built, err := buildTools(ctx, missing, w)
	if err != nil {
		return nil, err
	}
	maps.Copy(paths, built)
	return paths, nil
}

// find returns the first usable installed t, or "", and why others were passed over.
func (t tool) find(ctx context.Context) (found string, rejected []error) {
	var candidates []string
	if assets := os.Getenv(AssetsVariable); assets != "" {
		candidates = append(candidates, filepath.Join(assets, t.name))
	}
	if found, err := exec.LookPath(t.name); err == nil {
		candidates = append(candidates, found)
	}
	for _, candidate := range candidates {
		err := t.check(ctx, candidate)
		if err == nil {
			return candidate, rejected
		}
		if !errors.Is(err, os.ErrNotExist) {
			rejected = append(rejected, err)
		}
	}
	return "", rejected
}

// check runs the executable at path to see whether it is a usable t.
func (t tool) check(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	output, err := exec.CommandContext(ctx, path, t.versionArgs...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %s %s: %w", path, t.name, strings.Join(t.versionArgs, " "), err)
	}
	if t.version == nil {
		return nil
	}
	match := t.version.FindSubmatch(output)
	if match == nil {
		return fmt.Errorf("%s: prints no version", path)
	}
	got, err := version.ParseGeneric(string(match[1]))
	if err != nil {
		return fmt.Errorf("%s: version %q: %w", path, match[1], err)
	}
	if got.LessThan(version.MustParseGeneric(t.minimum)) {
		return fmt.Errorf("%s: %s %s is too old, %s is needed: %s", path, t.name, got, t.minimum, t.why)
	}
	return nil
}
