package helm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestABadValueIsRefusedWithTheNameOfItsField(t *testing.T) {
	for name, c := range map[string]struct{ values, field, message string }{
		"an unknown value":              {"replica: 3", "", "'replica' not allowed"},
		"an unknown value in a group":   {"image: {repo: a}", "/image", "'repo' not allowed"},
		"an unknown setting":            {"settings: {log-level: debug}", "/settings", "'log-level' not allowed"},
		"an unknown flag":               {"flags: {listen: ':1'}", "/flags", "'listen' not allowed"},
		"upstreams are not a text":      {"upstreams: https://a", "/upstreams", "got string, want array"},
		"an upstream without https":     {"upstreams: ['http://a']", "/upstreams/0", "does not match pattern"},
		"two upstreams in one":          {"upstreams: ['https://a,https://b']", "/upstreams/0", "does not match pattern"},
		"a log level that is none":      {"settings: {log_level: loud}", "/settings/log_level", "must be one of"},
		"a duration without a unit":     {"settings: {offline_events_max_age: '10'}", "/settings/offline_events_max_age", "does not match pattern"},
		"a setting with a list":         {"settings: {cache_agents: [a]}", "/settings/cache_agents", "got array, want string"},
		"a number that is not whole":    {"settings: {canary_percent: 1.5}", "/settings/canary_percent", "got number, want integer or string"},
		"a tag with a space":            {"image: {tag: 'v 1'}", "/image/tag", "does not match pattern"},
		"neither a tag nor a digest":    {"image: {tag: null}", "/image", "missing property 'tag'"},
		"a digest that is none":         {"image: {digest: 'sha256:12'}", "/image/digest", "does not match pattern"},
		"a pull policy that is none":    {"image: {pullPolicy: Sometimes}", "/image/pullPolicy", "must be one of"},
		"no pull secrets to copy":       {"image: {copyPullSecrets: true}", "/image/pullSecrets", "got 0, want 1"},
		"replicas are a number":         {"replicas: '3'", "/replicas", "got string, want integer"},
		"a group is removed":            {"affinity: null", "", "missing property 'affinity'"},
		"no replica":                    {"replicas: 0", "/replicas", "got 0, want 1"},
		"a port for root only":          {"port: 443", "/port", "got 443, want 1,024"},
		"a port that is none":           {"metricsPort: 70000", "/metricsPort", "want 65,535"},
		"a variable that is a number":   {"env: [{name: KUBERNETES_SERVICE_PORT, value: 443}]", "/env/0/value", "got number, want string"},
		"true in quotes":                {"hostNetwork: 'true'", "/hostNetwork", "got string, want boolean"},
		"a label that is not a text":    {"nodeSelector: {edge: false}", "/nodeSelector/edge", "got boolean, want string"},
		"tolerations are a list":        {"tolerations: {key: a}", "/tolerations", "got object, want array"},
		"an unknown affinity":           {"affinity: {nodes: {}}", "/affinity", "'nodes' not allowed"},
		"no addresses of API servers":   {"networkPolicy: {enabled: true}", "/networkPolicy/apiServers", "got 0, want 1"},
		"an address that is not a CIDR": {"networkPolicy: {apiServers: [192.0.2.1]}", "/networkPolicy/apiServers/0", "does not match pattern"},
		"an issuer without a name":      {"certManager: {enabled: true, issuerRef: {kind: Issuer}}", "/certManager/issuerRef", "missing property 'name'"},
		"monitoring without a group":    {"monitoring: true", "/monitoring", "got boolean, want object"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := template(t, system, c.values)
			if err == nil {
				t.Fatal("it is accepted")
			}
			if message := err.Error(); !strings.Contains(message, "at '"+c.field+"': ") || !strings.Contains(message, c.message) {
				t.Errorf("the error does not say that at %q %q:\n%s", c.field, c.message, message)
			}
		})
	}
}

// The name of an object may be a number.
func TestANameOfDigitsStaysAText(t *testing.T) {
	text, err := template(t, system, "image: {pullSecrets: ['123']}\njanitor: {enabled: true}")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(text, `- name: "123"`); n != 2 {
		t.Errorf("the name is a text %d times, want 2", n)
	}
}

func TestTheExamplesOfTheValuesAreAccepted(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	examples := 0
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		for _, example := range []string{"# replicas: ", "# port: ", "# metricsPort: ", "#  "} {
			if strings.HasPrefix(line, example) {
				lines[i] = strings.TrimPrefix(strings.TrimPrefix(line, "# "), "#")
				examples++
			}
		}
	}
	if examples < 5 {
		t.Fatalf("only %d examples are found", examples)
	}
	values := strings.Replace(strings.Join(lines, "\n"), "settings: {}", "settings:", 1)
	if _, err := template(t, system, values); err != nil {
		t.Error(err)
	}
}

func TestTheChartIsWithoutComplaints(t *testing.T) {
	if _, err := command(t, helm, "lint", "--strict", chart); err != nil {
		t.Error(err)
	}
}

// In another namespace, all objects are there but those of the janitor, and the injector knows it.
func TestTheNamespaceIsThatOfTheRelease(t *testing.T) {
	out, err := template(t, "edge", "{namespace: {create: true}, certManager: {enabled: true}, monitoring: {enabled: true}, janitor: {enabled: true}}")
	if err != nil {
		t.Fatal(err)
	}
	all := objects(t, out)
	for _, key := range []string{"v1 Namespace  edge", "apps/v1 Deployment edge rockpool-injector", "v1 ConfigMap edge rockpool-cfg", "apps/v1 DaemonSet rockpool-janitor rockpool-janitor"} {
		if all[key] == nil {
			t.Errorf("there is no %s", key)
		}
	}
	if strings.Contains(out, system) {
		t.Errorf("%s is still in the output", system)
	}
	if want := "- --excluded-namespaces=kube-system,edge\n"; !strings.Contains(out, want) {
		t.Errorf("the injector has no argument %s", want)
	}
}

func TestAnIssuerOfYourOwnReplacesTheCA(t *testing.T) {
	out, err := template(t, system, "certManager: {enabled: true, issuerRef: {name: company, kind: ClusterIssuer}}")
	if err != nil {
		t.Fatal(err)
	}
	certificates := 0
	for key, object := range objects(t, out) {
		if !strings.HasPrefix(key, "cert-manager.io/v1 ") {
			continue
		}
		certificates++
		issuer := object["spec"].(map[string]any)["issuerRef"].(map[string]any)
		if object["kind"] != "Certificate" || issuer["name"] != "company" || issuer["kind"] != "ClusterIssuer" {
			t.Errorf("%s has the issuer %v", key, issuer)
		}
	}
	if certificates != 1 {
		t.Errorf("there are %d objects of cert-manager, want the certificate alone", certificates)
	}
}

func TestADigestReplacesTheTagInAllPods(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	out, err := template(t, system, "{image: {digest: '"+digest+"'}, janitor: {enabled: true}}")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out, "rockpool@"+digest+"\n"); n != 3 || strings.Contains(out, "rockpool:dev") {
		t.Errorf("the digest is there %d times, want 3", n)
	}
}

// The notes name what the values leave undone.
func TestTheNotesSayWhatToDoNext(t *testing.T) {
	const none = "image: {repository: registry.example.com/rockpool}\nupstreams: ['https://a']\n"
	for name, c := range map[string]struct {
		values, note string
		warned       bool
	}{
		"no registry":         {"", "is in no registry", true},
		"a registry":          {none, "is in no registry", false},
		"no upstreams":        {"", "No upstreams are set", true},
		"upstreams":           {none, "No upstreams are set", false},
		"pull secrets":        {"image: {pullSecrets: [a]}", "no pull Secret", true},
		"copied pull secrets": {"image: {pullSecrets: [a], copyPullSecrets: true}", "no pull Secret", false},
		"Pod Security":        {"", "pod-security.kubernetes.io/enforce=restricted", true},
		"the node's network":  {"hostNetwork: true", "pod-security.kubernetes.io/enforce=privileged", true},
		"always":              {none, "-n rockpool-system rollout status deployment rockpool-injector", true},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "values.yaml")
			if err := os.WriteFile(file, []byte(c.values), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := command(t, helm, "install", "rockpool", chart, "--namespace", system, "--values", file, "--dry-run=client")
			if err != nil {
				t.Fatal(err)
			}
			_, notes, found := strings.Cut(out, "\nNOTES:\n")
			if !found {
				t.Fatal("there are no notes")
			}
			if strings.Contains(notes, c.note) != c.warned {
				t.Errorf("%q in the notes: want %t\n%s", c.note, c.warned, notes)
			}
		})
	}
}
