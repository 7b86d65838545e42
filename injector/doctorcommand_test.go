package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"rockpool.dev/injector/doctor"
	"rockpool.dev/injector/inject"
)

// doctorsAPI is an API server with some objects, as JSON by their paths. What is not there is not
// found. tests/install asks a real one.
func doctorsAPI(t *testing.T, objects map[string]string) (kubeconfig string, asked *[]string) {
	t.Helper()
	asked = new([]string)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.Method+" "+r.URL.RequestURI())
		w.Header().Set("Content-Type", "application/json")
		if object, ok := objects[r.Method+" "+r.URL.Path]; ok {
			fmt.Fprint(w, object)
			return
		}
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
	}))
	t.Cleanup(server.Close)
	kubeconfig = filepath.Join(t.TempDir(), "config")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"c","cluster":{"server":%q}}],"contexts":[{"name":"c","context":{"cluster":"c"}}]}`, server.URL)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return kubeconfig, asked
}

const secretKey = "bm9ib2R5IG1heSBzZWUgdGhpcw=="

func someObjects() map[string]string {
	empty := func(kind string) string { return `{"kind":"` + kind + `","apiVersion":"v1","items":[]}` }
	return map[string]string{
		"GET /version":           `{"gitVersion":"v1.36.3"}`,
		"GET /api/v1/nodes":      empty("NodeList"),
		"GET /api/v1/namespaces": empty("NamespaceList"),
		"GET /api/v1/pods":       empty("PodList"),
		"GET /api/v1/namespaces/rockpool-system/secrets/rockpool-injector-certificate": `{"kind":"Secret","apiVersion":"v1","data":{"tls.key":"` + secretKey + `"}}`,
		"GET /api/v1/namespaces/rockpool-system/services/rockpool-injector":            `{"kind":"Service","apiVersion":"v1","spec":{"selector":{"a":"b"},"ports":[{"port":443,"targetPort":8443}]}}`,
		"GET /api/v1/namespaces/rockpool-system/pods": `{"kind":"PodList","apiVersion":"v1","items":[{"metadata":{"name":"i"},"spec":{"containers":[{"name":"injector",
			"args":["--upstream=https://api.example.com:6443"],"env":[{"name":"ROCKPOOL_INJECTOR_SIDECAR_IMAGE","value":"rockpool:v1"}]}]}}]}`,
		"GET /api/v1/namespaces/rockpool-system/configmaps/rockpool-cfg": `{"kind":"ConfigMap","apiVersion":"v1","data":{}}`,
		"GET /api/v1/namespaces/shop/pods/web":                           `{"kind":"Pod","apiVersion":"v1","metadata":{"namespace":"shop","name":"web","uid":"1"},"spec":{"containers":[{"name":"a","image":"b"}]}}`,
		"POST /api/v1/namespaces/default/pods":                           `{"kind":"Pod","apiVersion":"v1","metadata":{"annotations":{"rockpool.dev/status":"{\"version\":\"v9\"}"}}}`,
	}
}

func TestTheDoctorExaminesAClusterAndItsPods(t *testing.T) {
	kubeconfig, asked := doctorsAPI(t, someObjects())
	out, err := run(t.Context(), "doctor", "--kubeconfig="+kubeconfig, "--pod=shop/web", "--pod=shop/none", "-f", "testdata/deployment.yaml")
	if err == nil || !strings.Contains(err.Error(), "FAIL") {
		t.Errorf("the exit status is 0: %v", err)
	}
	for _, want := range []string{
		"OK    api-server              the API server answers; it is v1.36.3\n",
		"FAIL  webhook-missing         there is no MutatingWebhookConfiguration rockpool\n                              → apply the manifests",
		"FAIL  certificate-missing ", "FAIL  injector-not-ready ", "WARN  policy-missing ",
		"OK    settings                pods get rockpool:v1, and reach the API server at https://api.example.com:6443\n",
		"FAIL  pod-missing             there is no pod shop/none\n", "FAIL  pod-not-requested       Pod shop/web would not be injected",
		"FAIL  pod-excluded            Pod web-6d4cf56db6- would not be injected",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if strings.Contains(out, secretKey) || strings.Contains(out, "nobody may see this") {
		t.Error("it shows the Secret")
	}
	for _, call := range *asked {
		if !strings.HasPrefix(call, "GET ") && !strings.HasPrefix(call, "POST /api/v1/namespaces/default/pods?dryRun=All") {
			t.Errorf("it changes something: %s", call)
		}
	}
}

// Which namespaces an injector excludes is not known while there is none: it may be the component
// kube-system that has changed them.
func TestWhatAnAbsentInjectorExcludesIsNotGuessed(t *testing.T) {
	objects := someObjects()
	objects["GET /api/v1/namespaces/rockpool-system/pods"] = `{"kind":"PodList","apiVersion":"v1","items":[]}`
	objects["GET /apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/rockpool"] = `{"kind":"MutatingWebhookConfiguration","apiVersion":"admissionregistration.k8s.io/v1",
		"webhooks":[{"name":"inject-kube-system.rockpool.dev","clientConfig":{"service":{"namespace":"rockpool-system","name":"rockpool-injector","path":"/inject"}},
		"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"kube-system"}}}]}`
	kubeconfig, _ := doctorsAPI(t, objects)
	out, err := run(t.Context(), "doctor", "--kubeconfig="+kubeconfig)
	if err == nil || !strings.Contains(out, "injector-missing ") || strings.Contains(out, "exclusions-differ") {
		t.Errorf("%v\n%s", err, out)
	}
}

// The advice names flags of the doctor itself.
func TestTheAdviceNamesFlagsThatTheDoctorHas(t *testing.T) {
	flags := newDoctorCommand().Flags()
	for _, name := range []string{"injector-namespace", "service"} {
		if flags.Lookup(name) == nil || !strings.Contains(doctor.Advice[doctor.WebhookElsewhere], "--"+name) {
			t.Errorf("--%s: %s", name, doctor.Advice[doctor.WebhookElsewhere])
		}
	}
}

func TestTheDoctorsJSONHasTheSame(t *testing.T) {
	kubeconfig, _ := doctorsAPI(t, someObjects())
	out, err := run(t.Context(), "doctor", "--kubeconfig="+kubeconfig, "--json")
	var all []doctor.Finding
	if jsonErr := json.Unmarshal([]byte(out), &all); jsonErr != nil || err == nil {
		t.Fatalf("%v, %v: %s", jsonErr, err, out)
	}
	if len(all) < 5 || all[0].Code != doctor.Server || all[1].Code != doctor.WebhookMissing || all[1].Next == "" {
		t.Errorf("%+v", all)
	}
}

func TestTheDoctorOfAClusterThatDoesNotAnswer(t *testing.T) {
	kubeconfig, _ := doctorsAPI(t, nil)
	out, err := run(t.Context(), "doctor", "--kubeconfig="+kubeconfig, "--pod=shop/web")
	if err == nil || !strings.HasPrefix(out, "FAIL  api-server-silent ") || strings.Count(out, "FAIL") != 1 {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestWhatTheDoctorIsAskedMustMakeSense(t *testing.T) {
	kubeconfig, _ := doctorsAPI(t, nil)
	for _, test := range []struct{ args, want string }{
		{"--pod=web", `--pod: "web" is not namespace/name`},
		{"-f /no/such/file", "--filename: /no/such/file: "},
		{"--kubeconfig=/no/such/file", "--kubeconfig: "},
		{"now", "unknown command"},
	} {
		if _, err := run(t.Context(), append([]string{"doctor", "--kubeconfig=" + kubeconfig}, strings.Fields(test.args)...)...); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", test.args, err, test.want)
		}
	}
}

func TestTheFlagsOfARunningInjector(t *testing.T) {
	for name, test := range map[string]struct {
		container *corev1.Container
		image     string
		excluded  string
	}{
		"no injector": {nil, "", "kube-system,rockpool-system"},
		"a flag overrides its variable": {&corev1.Container{
			Args: []string{"--sidecar-image=rockpool:v2", "--excluded-namespaces=rockpool-system", "--unknown=1"},
			Env:  []corev1.EnvVar{{Name: "ROCKPOOL_INJECTOR_SIDECAR_IMAGE", Value: "rockpool:v1"}, {Name: "HOME", Value: "/"}},
		}, "rockpool:v2", "rockpool-system"},
		"a value in an argument of its own": {&corev1.Container{
			Command: []string{"/rockpool-injector", "serve", "--sidecar-image", "rockpool:v3"}, Args: []string{"--unknown", "1", "--excluded-namespaces", "a,b", "-v", "--excluded-namespaces=c"},
		}, "rockpool:v3", "a,b,c"},
		"a switch takes no argument":          {&corev1.Container{Args: []string{"--cache-agents", "*", "--api-names-notice", "--sidecar-image", "rockpool:v4"}}, "rockpool:v4", "kube-system,rockpool-system"},
		"a flag without its value":            {&corev1.Container{Args: []string{"--sidecar-image"}}, "", "kube-system,rockpool-system"},
		"nothing behind two dashes is a flag": {&corev1.Container{Args: []string{"--", "--sidecar-image=rockpool:v5"}}, "", "kube-system,rockpool-system"},
		"an invalid one has its default":      {&corev1.Container{Args: []string{"--sidecar-image=rockpool:v2", "--stay=soon"}}, "", "kube-system,rockpool-system"},
	} {
		t.Run(name, func(t *testing.T) {
			params, excluded := flagsOf(test.container)
			if params.Image != test.image || strings.Join(excluded, ",") != test.excluded || params.CacheHostPath != inject.DefaultCacheHostPath {
				t.Errorf("%+v, %q", params, excluded)
			}
		})
	}
}
