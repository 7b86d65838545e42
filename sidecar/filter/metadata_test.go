package filter

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestServicesWithTheirMetadataAloneAreFilteredByTheirType is about clients that do not see the type of
// a Service themselves.
func TestServicesWithTheirMetadataAloneAreFilteredByTheirType(t *testing.T) {
	discard := map[string]string{"svc.openyurt.io/discard": "true"}
	internal := newService("db", discard)
	internal.Spec.Type = corev1.ServiceTypeClusterIP
	for _, format := range formats {
		t.Run(format.MediaType(), func(t *testing.T) {
			s := newServer(t)
			s.put(newService("cloud", discard))
			s.put(internal)
			s.put(newService("web", nil))
			c := startClient(t, &client{filter: newFilter(t, s), path: pathServices, format: format, as: "PartialObjectMetadata"})
			sees := func(what string, want ...string) {
				t.Helper()
				c.waitFor(what, func() bool { return slices.Equal(slices.Sorted(maps.Keys(c.held)), want) })
			}
			sees("a list", "shop/db", "shop/web")
			s.put(newService("web", discard))
			sees("a Service that is discarded", "shop/db")
			s.put(newService("cloud", nil))
			sees("a Service that is no longer discarded", "shop/cloud", "shop/db")
			external := internal.DeepCopy()
			external.Spec.Type = corev1.ServiceTypeLoadBalancer
			s.put(external)
			sees("a Service that becomes a LoadBalancer", "shop/cloud")
			s.remove("services", "shop/web")
			s.put(newService("web", nil))
			sees("a Service that comes again", "shop/cloud", "shop/web")
			if c.lists != 1 {
				t.Errorf("the client had to list %d times", c.lists)
			}
		})
	}
}

func TestServicesInATableAreFilteredByTheirType(t *testing.T) {
	s := newServer(t)
	s.put(newService("cloud", map[string]string{"svc.openyurt.io/discard": "true"}))
	s.put(newService("web", nil))
	f := newFilter(t, s)
	code, body := get(t, f, pathServices, "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
	if code != http.StatusOK || strings.Contains(body, "cloud") || !strings.Contains(body, "web") {
		t.Errorf("%d %s", code, body)
	}
}
