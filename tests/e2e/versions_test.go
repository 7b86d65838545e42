package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"rockpool.dev/tests/bed/pod"
)

// nextImage has the sidecar of a next version, see nextVersion.
const nextImage = "rockpool:next"

// TestTwoVersionsWithDifferentCachesShareANode runs two versions of the sidecar side by side, as in a
// rolling update or beside a canary, and then offline a pod of each, as after a rollback.
func TestTwoVersionsWithDifferentCachesShareANode(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.Images = map[string]pod.Image{nextImage: nextVersion(t)}
	s.configMap("greeting", "hello")
	s.newerSettings("hedging: {mode: fast}\nlog: {level: debug, colour: blue}\n")
	replica := func(name, image string) *testPod {
		return s.pod(func(p *corev1.Pod) {
			p.GenerateName, p.Name = "web-", name
			if image != "" {
				p.Annotations["rockpool.dev/image"] = image
			}
		})
	}
	present := replica("web-1", "")
	present.sees("synced")
	present.sidecarSays("hedging.mode: unknown key")
	present.sidecarSays("log.colour: unknown key")
	if a := present.python("get", "greeting"); a.Data["value"] != "hello" {
		t.Errorf("%+v", a)
	}
	present.sidecarSays(`"level":"debug"`) // the setting that it knows is in effect: it logs the request
	next := replica("web-2", nextImage)
	next.sees("synced")
	s.configMap("greeting", "good morning")
	present.sees("updated", "greeting", "good morning")
	next.sees("updated", "greeting", "good morning")

	s.Link.Cut()
	for _, p := range []*testPod{present, next} { // the next version's cache is the freshest
		if err := p.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	for name, image := range map[string]string{"web-3": "", "web-4": nextImage} {
		p := replica(name, image)
		p.sees("present", "greeting", "good morning")
		p.sees("synced")
	}
}

// newerSettings writes what an injector of another version has published.
func (s *site) newerSettings(text string) {
	s.t.Helper()
	config := s.cluster.Config()
	config.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + injectorNamespace + ":rockpool-injector", // as its policy demands
		Groups:   []string{"system:masters"},
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = client.CoreV1().ConfigMaps(s.namespace).Create(s.ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: podSettings}, Data: map[string]string{"rockpool.yaml": text},
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
}

// nextVersion builds a sidecar whose cache has another layout. For the rest it is the present one.
func nextVersion(t *testing.T) pod.Image {
	t.Helper()
	source, err := filepath.Abs("../../store/open.go")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`schemaVersion = [0-9]+\n`)
	if len(version.FindAll(text, -1)) != 1 {
		t.Fatalf("%s does not set schemaVersion once", source)
	}
	directory := t.TempDir()
	replacement, overlay := filepath.Join(directory, "open.go"), filepath.Join(directory, "overlay.json")
	program := filepath.Join(directory, "rockpool-sidecar")
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{source: replacement}})
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string][]byte{replacement: version.ReplaceAll(text, []byte("schemaVersion = 1000\n")), overlay: replace} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlay, "-o", program, "rockpool.dev/sidecar")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the next version: %v\n%s", err, out)
	}
	if err := os.Chmod(directory, 0o755); err != nil { // for pods, which run as other users
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(directory), 0o755); err != nil {
		t.Fatal(err)
	}
	return pod.Image{Files: map[string]string{"/rockpool-sidecar": program}, UID: 65532, GID: 65532}
}
