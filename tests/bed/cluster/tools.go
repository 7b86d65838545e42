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
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/version"

	"rockpool.dev/tests/bed/internal/gobuild"
)

// Environment variables that FindTools reads.
const (
	// AssetsVariable names a directory with kube-apiserver, etcd and kubectl. envtest of
	// controller-runtime uses the same variable.
	AssetsVariable = "KUBEBUILDER_ASSETS"
	// ToolsVariable names the directory for built tools, instead of "rockpool-tools" below
	// os.UserCacheDir.
	ToolsVariable = gobuild.DirectoryVariable
)

// Tools are the paths of the programs of a control plane.
type Tools struct {
	APIServer string
	Etcd      string
	Kubectl   string
}

// NodeTools are the paths, by name, of the programs of a node or of the e2e suite, and of the
// controllers that these need.
type NodeTools map[string]string

// A tool describes how to recognize a usable version of a program, and how to build it.
type tool struct {
	name        string         // name of the executable
	module      string         // directory of its module, relative to the root of the checkout
	pkg         string         // main package in that module
	test        bool           // the program is the package's test binary
	tags        string         // build tags; not empty: cgo is on
	needs       string         // Debian packages that its build needs
	versionArgs []string       // arguments with which it prints its version and exits with 0
	version     *regexp.Regexp // finds the version in that output; nil: any version is usable
	minimum     string         // the oldest usable version
	why         string         // the reason why older ones are not usable
	place, of   int            // among the tools that are built, from 1, for messages
}

// Modules of the tools, outside the main module.
const (
	kubernetesModule = "tests/tools"
	// A separate module, because containerd requires other versions of the Kubernetes libraries.
	containerdModule = "tests/bed/node/build"
	// A separate module, so that a change of what the suite requires does not make the tools above
	// be built again.
	suiteModule = "tests/tools/suite"
	// A separate module, because it is large and few tests need it.
	monitoringModule = "tests/bed/monitoring"
	// A separate module, because Helm requires other versions of the Kubernetes libraries.
	helmModule = "tests/bed/helm"
)

var controlPlaneTools = []tool{
	{
		name: "etcd", module: kubernetesModule, pkg: "go.etcd.io/etcd/server/v3", versionArgs: []string{"--version"},
		version: regexp.MustCompile(`etcd Version: (\S+)`), minimum: "3.5.13",
		why: "with older ones, WatchList silently falls back to LIST",
	},
	{
		name: "kube-apiserver", module: kubernetesModule, pkg: "k8s.io/kubernetes/cmd/kube-apiserver", versionArgs: []string{"--version"},
		version: regexp.MustCompile(`Kubernetes (v\S+)`), minimum: "1.34.0",
		why: "in older ones, WatchList is off by default",
	},
	{
		// On some machines this is a dispatcher that picks a kubectl. Any version is usable: it is
		// the one that people use there.
		name: "kubectl", module: kubernetesModule, pkg: "k8s.io/kubernetes/cmd/kubectl", versionArgs: []string{"version", "--client"},
	},
}

var (
	controllerManager = kubernetesTool("kube-controller-manager", "it must not be older than the kubelet")
	scheduler         = kubernetesTool("kube-scheduler", "it must not be older than the kubelet")
)

// nodeTools are built only when a node is asked for.
var nodeTools = []tool{
	kubernetesTool("kubelet", "in older ones, sidecar containers are not stable"),
	controllerManager, scheduler,
	containerdTool("containerd", "--version", `containerd/v2 v?(\S+)`),
	containerdTool("containerd-shim-runc-v2", "-v", `Version:\s+v?(\S+)`),
	containerdTool("ctr", "--version", `containerd/v2 v?(\S+)`),
	{
		name: "runc", module: containerdModule, pkg: "github.com/opencontainers/runc", tags: "seccomp",
		needs: "gcc libc6-dev libseccomp-dev pkg-config", versionArgs: []string{"--version"},
		// A runc without libseccomp does not print this line, and runs no container with a profile.
		version: regexp.MustCompile(`(?s)runc version (\S+).*libseccomp:`), minimum: "1.2.0",
		why: "containerd 2 requires it",
	},
	pluginTool("main/ptp"),
	pluginTool("ipam/host-local"),
}

// suiteTools are built only when the Kubernetes e2e suite is asked for.
var suiteTools = []tool{
	controllerManager, scheduler,
	{
		name: "e2e.test", module: suiteModule, pkg: "k8s.io/kubernetes/test/e2e", test: true, versionArgs: []string{"--version"},
		version: regexp.MustCompile(`^(v\S+)`), minimum: "1.36.0", why: "an older suite tests less",
	},
	{
		name: "ginkgo", module: suiteModule, pkg: "github.com/onsi/ginkgo/v2/ginkgo", versionArgs: []string{"version"},
		version: regexp.MustCompile(`Ginkgo Version (\S+)`), minimum: "2.28.0", why: "the suite is built with 2.28",
	},
}

// monitoringTools are built only for tests of the monitoring. Without service discovery for clouds,
// which has hundreds of packages; Prometheus is also without its web pages, which are not in its
// module.
var monitoringTools = []tool{monitoringTool("prometheus"), monitoringTool("promtool")}

// helmTools are built only for tests of the chart.
var helmTools = []tool{{
	name: "helm", module: helmModule, pkg: "helm.sh/helm/v4/cmd/helm", versionArgs: []string{"version", "--short"},
	version: regexp.MustCompile(`^v(\d+\.\d+\S*)`), minimum: "4.0.0", why: "older ones do not apply on the server's side",
}}

func monitoringTool(name string) tool {
	return tool{
		name: name, module: monitoringModule, pkg: "github.com/prometheus/prometheus/cmd/" + name, tags: "netgo,remove_all_sd,enable_kubernetes_sd",
		versionArgs: []string{"--version"},
	}
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
		version: regexp.MustCompile(version), minimum: "2.0.0", why: "kubelet 1.36 requires containerd 2",
	}
}

// pluginTool is a CNI plugin. Without CNI_COMMAND it prints its version.
func pluginTool(directory string) tool {
	name := path.Base(directory)
	return tool{
		name: name, module: containerdModule, pkg: "github.com/containernetworking/plugins/plugins/" + directory,
		version: regexp.MustCompile(`CNI ` + name + ` plugin.*(?s:.*)versions supported:.* (1\.\S+)`), minimum: "1.0.0",
		why: "the node's CNI configuration has that version",
	}
}

// FindTools looks for each tool in $KUBEBUILDER_ASSETS and then in $PATH. It builds a tool that is
// in neither, or not usable, into a cache directory. It writes progress to w, since the first build
// takes minutes. Several processes may call it at once: one builds, the others wait for it.
func FindTools(ctx context.Context, w io.Writer) (Tools, error) {
	paths, err := findTools(ctx, controlPlaneTools, w)
	if err != nil {
		return Tools{}, err
	}
	return Tools{APIServer: paths["kube-apiserver"], Etcd: paths["etcd"], Kubectl: paths["kubectl"]}, nil
}

// FindKubectl finds or builds kubectl alone, for a cluster that runs elsewhere.
func FindKubectl(ctx context.Context, w io.Writer) (Tools, error) {
	i := slices.IndexFunc(controlPlaneTools, func(t tool) bool { return t.name == "kubectl" })
	paths, err := findTools(ctx, controlPlaneTools[i:i+1], w)
	return Tools{Kubectl: paths["kubectl"]}, err
}

// FindMonitoringTools is FindTools for prometheus and promtool, by name.
func FindMonitoringTools(ctx context.Context, w io.Writer) (NodeTools, error) {
	return findTools(ctx, monitoringTools, w)
}

// FindHelm finds or builds helm.
func FindHelm(ctx context.Context, w io.Writer) (string, error) {
	paths, err := findTools(ctx, helmTools, w)
	return paths["helm"], err
}

// FindNodeTools is FindTools for the programs of a node.
func FindNodeTools(ctx context.Context, w io.Writer) (NodeTools, error) {
	return findTools(ctx, nodeTools, w)
}

// FindSuiteTools is FindTools for the Kubernetes e2e suite: e2e.test, ginkgo, which runs it in several
// processes, and the controllers that it needs.
func FindSuiteTools(ctx context.Context, w io.Writer) (NodeTools, error) {
	return findTools(ctx, suiteTools, w)
}

func findTools(ctx context.Context, tools []tool, w io.Writer) (map[string]string, error) {
	paths := map[string]string{}
	var missing []tool
	for _, t := range tools {
		path, rejected := t.find(ctx)
		for _, err := range rejected {
			fmt.Fprintf(w, "tools: ignored: %v\n", err)
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

// find returns the path of the first usable installation, or "", and the reasons why it rejected
// others.
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

// check runs the executable at path and returns nil if it is usable as t.
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
		return fmt.Errorf("%s: does not print a version", path)
	}
	got, err := version.ParseGeneric(string(match[1]))
	if err != nil {
		return fmt.Errorf("%s: version %q: %w", path, match[1], err)
	}
	if got.LessThan(version.MustParseGeneric(t.minimum)) {
		return fmt.Errorf("%s: %s %s is too old, need %s: %s", path, t.name, got, t.minimum, t.why)
	}
	return nil
}
