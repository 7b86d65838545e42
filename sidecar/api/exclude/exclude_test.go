package exclude

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	got, err := Parse(" configmaps, certificates.cert-manager.io,*.example.com , payments/*, payments/secrets,payments/leases.coordination.k8s.io,payments/*.apps,configmaps,")
	want := Rules{
		{"", "", "configmaps"}, {"", "cert-manager.io", "certificates"}, {"", "example.com", "*"}, {"payments", "*", "*"},
		{"payments", "", "secrets"}, {"payments", "coordination.k8s.io", "leases"}, {"payments", "apps", "*"},
	}
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for _, bad := range []string{"*", "Configmaps", "/pods", "a/b/c", "payments/", "UPPER/pods", "pods.", "*.", ".apps", "a b", "*pods"} {
		if rules, err := Parse(bad); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v, %v", bad, rules, err)
		}
	}
}

func TestWhatIsExcluded(t *testing.T) {
	for _, test := range []struct {
		rules, group, resource, namespace string
		object, scope                     bool
	}{
		{"configmaps", "", "configmaps", "shop", true, true},
		{"configmaps", "", "configmaps", "", true, true},
		{"configmaps", "", "pods", "shop", false, false},
		{"ingresses.networking.k8s.io", "extensions", "ingresses", "shop", false, false},
		{"*.cert-manager.io", "cert-manager.io", "certificates", "shop", true, true},
		{"*.cert-manager.io", "acme.cert-manager.io", "orders", "shop", false, false},
		{"payments/*", "apps", "deployments", "payments", true, true},
		{"payments/*", "apps", "deployments", "shop", false, false},
		{"payments/*", "apps", "deployments", "", false, true},   // the list of all namespaces
		{"payments/*", "", "nodes", "", false, false},            // has no namespace
		{"payments/*", "example.com", "ponds", "", false, true},  // may have
		{"payments/configmaps", "", "secrets", "", false, false}, // another resource
		{"nodes", "", "nodes", "", true, true},
		{"", "", "pods", "shop", false, false},
	} {
		rules, err := Parse(test.rules)
		if err != nil {
			t.Fatal(err)
		}
		if got := rules.Object(test.group, test.resource, test.namespace); got != test.object {
			t.Errorf("%q excludes the object %+v: %v", test.rules, test, got)
		}
		if got := rules.Scope(test.group, test.resource, test.namespace); got != test.scope {
			t.Errorf("%q excludes the list %+v: %v", test.rules, test, got)
		}
	}
}

func TestNothingIsExcludedByDefault(t *testing.T) {
	var none *Current
	if none.Rules() != nil || new(Current).Rules() != nil {
		t.Error("something is excluded")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("configmaps, *.a.example,payments/*")
	f.Fuzz(func(t *testing.T, list string) {
		rules, err := Parse(list)
		if err != nil {
			return
		}
		for _, r := range rules {
			if !rules.Object(r.Group, r.Resource, r.Namespace) || r.Resource == "" {
				t.Errorf("%q: %+v does not exclude what it says", list, r)
			}
		}
	})
}
