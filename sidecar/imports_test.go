package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// layers are the packages of the project from top to bottom. A package may import only packages
// of lower layers; packages of one layer know nothing of each other. docs/architecture.md has the
// picture.
var layers = [][]string{
	{"sidecar"},
	{"sidecar/dispatch", "sidecar/socket", "sidecar/filter", "sidecar/meter", "sidecar/doctor", "sidecar/status", "sidecar/report"},
	{"sidecar/watch"},
	{"sidecar/relist", "sidecar/live"},
	{"sidecar/cache", "sidecar/inspect"},
	{"sidecar/record", "sidecar/replay", "sidecar/write/outbox", "sidecar/write/lease", "sidecar/write/token", "sidecar/pod/janitor"},
	{"sidecar/write"},
	{"sidecar/filter/keep"},
	{"sidecar/filter/rule"},
	{"sidecar/api/convert"},
	{"sidecar/api/request"},
	{"sidecar/api/wire", "store", "sidecar/upstream", "sidecar/proxy", "sidecar/principal", "sidecar/pod/account",
		"sidecar/pod/certs", "sidecar/pod/prepare", "sidecar/pod/slot", "sidecar/pod/wait"},
	{"sidecar/outage"},
	{"sidecar/api/origin", "sidecar/tally", "sidecar/pod/flock", "sidecar/pod/processors"},
}

// settings stand beside the layers: only the command reads them, and hands on what they say. The
// injector checks annotations by the same rules.
var settings = []string{"sidecar/config", "sidecar/api/filters", "sidecar/api/agent", "sidecar/api/exclude", "sidecar/api/expression"}

// words are the packages of settings that parts of the sidecar take as they are.
var words = []string{"sidecar/api/filters", "sidecar/api/agent", "sidecar/api/exclude", "sidecar/api/expression"}

func TestImportsRunDownOnly(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "rockpool.dev/sidecar/...", "rockpool.dev/store/...", "rockpool.dev/injector/...").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	layer := func(name string) int {
		return slices.IndexFunc(layers, func(names []string) bool { return slices.Contains(names, name) })
	}
	for line := range strings.Lines(string(out)) {
		var ours []string
		for _, name := range strings.Fields(line) {
			if name, ok := strings.CutPrefix(name, "rockpool.dev/"); ok {
				ours = append(ours, name)
			}
		}
		name, imports := ours[0], ours[1:]
		if strings.HasSuffix(name, "test") { // for tests only, which the list of imports leaves out
			continue
		}
		injects := name == "injector" || strings.HasPrefix(name, "injector/")
		if !injects && layer(name) < 0 && !slices.Contains(settings, name) {
			t.Errorf("%s has no place in the layers", name)
		}
		for _, imported := range imports {
			var allowed bool
			switch {
			case injects:
				allowed = strings.HasPrefix(imported, "injector/") || slices.Contains(settings, imported)
			case slices.Contains(settings, name):
				allowed = slices.Contains(words, imported) && name != imported
			case slices.Contains(settings, imported):
				takes := slices.Contains([]string{"sidecar/dispatch", "sidecar/cache", "sidecar/record", "sidecar/filter"}, name) || strings.HasPrefix(name, "sidecar/filter/")
				allowed = name == "sidecar" || takes && slices.Contains(words, imported)
			default:
				allowed = layer(imported) > layer(name)
			}
			if !allowed {
				t.Errorf("%s imports %s, which is not below it", name, imported)
			}
		}
	}
}

// heavy are packages of other modules that are not to be linked into the sidecar, with the reason.
// Every sidecar of a node keeps what their initialisers allocate.
var heavy = map[string]string{
	"github.com/google/cel-go/cel":                  "0.2 MB through protodesc; sidecar/api/expression is made of cel-go's parts",
	"github.com/google/cel-go/ext":                  "it imports package cel",
	"google.golang.org/protobuf/reflect/protodesc":  "its initialiser decodes descriptors, 0.14 MB",
	"google.golang.org/protobuf/types/descriptorpb": "its initialiser allocates 47 KB",
	"k8s.io/client-go/kubernetes":                   "the types of all API groups; api/wire needs none",
	"k8s.io/client-go/kubernetes/scheme":            "the types of all API groups; api/wire needs none",
	"k8s.io/client-go/rest":                         "upstream sends requests itself",
	"k8s.io/api/core/v1":                            "generated code of many types; api/wire needs none",
	"k8s.io/apimachinery/pkg/runtime/serializer":    "serializers of a scheme; api/convert has its own",
	"net/http/pprof":                                "with it, Go keeps profiles of all allocations",
	"runtime/pprof":                                 "with it, Go keeps profiles of all allocations",
}

func TestTheSidecarDoesNotLinkHeavyPackages(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "rockpool.dev/sidecar").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	linked := strings.Fields(string(out))
	if !slices.Contains(linked, "net/http") {
		t.Fatalf("go list -deps gives %d packages without net/http", len(linked))
	}
	for name, reason := range heavy {
		if slices.Contains(linked, name) {
			t.Errorf("%s is linked: %s", name, reason)
		}
	}
}
