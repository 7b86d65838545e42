package e2enode

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// quickstart is the page whose commands the test runs.
const quickstart = "../../docs/quickstart.md"

// block returns the code block of the page after a mark.
func (s *site) block(page []byte, mark string) string {
	s.t.Helper()
	match := regexp.MustCompile("(?s)<!-- run: " + mark + " -->\n```[a-z]*\n(.*?)```").FindSubmatch(page)
	if match == nil {
		s.t.Fatalf("%s has no block %q", quickstart, mark)
	}
	return string(match[1])
}

// local makes the page's Deployment run on a node without a registry: with the machine's curl.
func local(objects string) (string, error) {
	documents := strings.Split(objects, "\n---\n")
	last := len(documents) - 1
	var d appsv1.Deployment
	if err := yaml.UnmarshalStrict([]byte(documents[last]), &d); err != nil {
		return "", err
	}
	spec := &d.Spec.Template.Spec
	spec.Containers[0].Image = programsImage
	for _, name := range []string{"usr", "bin", "lib", "lib64"} {
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/" + name}}})
		spec.Containers[0].VolumeMounts = append(spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: name, MountPath: "/" + name, ReadOnly: true})
	}
	text, err := yaml.Marshal(&d)
	documents[last] = string(text)
	return strings.Join(documents, "\n---\n"), err
}

// The commands of the quick start work as a new user types them. The installation is that of all
// tests here, and the link of the node is cut in place of iptables.
func TestTheQuickStart(t *testing.T) {
	s := newSite(t, "quickstart")
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skipf("NOT VERIFIED: pods use the machine's curl: %v", err)
	}
	page, err := os.ReadFile(quickstart)
	s.try(err)
	directory := t.TempDir()
	objects, err := local(s.block(page, "program"))
	s.try(err)
	s.try(os.WriteFile(filepath.Join(directory, "reader.yaml"), []byte(objects), 0o600))
	run := func(mark string) string {
		t.Helper()
		cmd := exec.CommandContext(s.ctx, "bash", "-euc", s.block(page, mark))
		cmd.Dir = directory
		cmd.Env = append(os.Environ(), "KUBECONFIG="+testEnv.Kubeconfig(), "PATH="+filepath.Dir(testEnv.Tools().Kubectl)+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", mark, err, out)
		}
		t.Logf("%s:\n%s", mark, out)
		return string(bytes.TrimSpace(out))
	}
	says := func(text, want string) {
		t.Helper()
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}

	says(run("look"), `"containers":["rockpool-prepare","rockpool-sidecar"]`)
	p := s.pod("reader")
	p.sees("reader", "hello")
	p.recorded()
	inspected := run("inspect")
	says(inspected, "hello\n")
	says(inspected, "value: hello")
	if strings.Contains(inspected, "FAIL") {
		t.Errorf("the doctor finds a fault:\n%s", inspected)
	}
	says(run("rehearse"), "1 of 1 requests would be answered if the link went now")

	testEnv.node.Link.Cut()
	p.linkIs("offline")
	p.sees("reader", "from the cache: rockpool; hit")
	cut := run("cut")
	says(cut, "hello\nfrom the cache: rockpool; hit")
	run("restart")
	p.sees("reader", "hello")
	p.sees("reader", "from the cache: rockpool; hit")

	testEnv.node.Link.Restore()
	p.sees("reader", "good morning")
	if clean := s.block(page, "clean"); !strings.Contains(clean, fmt.Sprintf("delete namespace %s\n", s.namespace)) {
		t.Errorf("the quick start leaves its namespace: %s", clean)
	}
}
