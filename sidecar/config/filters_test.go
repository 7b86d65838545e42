package config

import (
	"slices"
	"strings"
	"testing"

	"rockpool.dev/sidecar/api/filters"
)

func key(t *testing.T, name string) Key {
	t.Helper()
	keys := Keys()
	i := slices.IndexFunc(keys, func(k Key) bool { return k.Name == name })
	if i < 0 {
		t.Fatalf("no key %s", name)
	}
	return keys[i]
}

func TestClientsOfAFilterAreAddedToItsDefaults(t *testing.T) {
	var c Config
	for name, value := range map[string]string{"filters.servicetopology": "traefik,!coredns", "filters.masterservice": "", "filters.choice": "-nodeportisolation"} {
		if err := key(t, name).set(&c, value); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []struct {
		filter, agent string
		want          bool
	}{
		{filters.ServiceTopology, "traefik/3", true},
		{filters.ServiceTopology, "kube-proxy/1", true},
		{filters.ServiceTopology, "coredns/1", false},
		{filters.MasterService, "kubelet/1", true},
		{filters.NodePortIsolation, "kube-proxy/1", false},
	} {
		if got := c.Filters.Enabled(x.filter, x.agent); got != x.want {
			t.Errorf("%s for %s: %v", x.filter, x.agent, got)
		}
	}
}

func TestSettingsOfOneConfigDoNotReachAnother(t *testing.T) {
	var first Config
	if err := key(t, "filters.servicetopology").set(&first, "traefik"); err != nil {
		t.Fatal(err)
	}
	second := first
	if err := key(t, "filters.servicetopology").set(&second, ""); err != nil {
		t.Fatal(err)
	}
	if !first.Filters.Enabled(filters.ServiceTopology, "traefik") || second.Filters.Enabled(filters.ServiceTopology, "traefik") {
		t.Error("one of them is wrong")
	}
}

func TestProblemsOfFiltersSayWhere(t *testing.T) {
	for name, x := range map[string]struct{ key, value, want string }{
		"an unknown filter":          {"filters.choice", "topology", "is not a filter"},
		"an agent with its version":  {"filters.servicetopology", "a/1", "is not a User-Agent's name"},
		"a rule without expression":  {"filters.keep", "services", "line 1:"},
		"an expression with a typo":  {"filters.keep", "pods: true\nservices: object.a ==", "rule of line 2: 1:12: "},
		"a pool that is no label":    {"filters.pool", "a b", "is not the value of a label"},
		"pools that are none":        {"filters.pools", "a", "POOL=NODE,NODE"},
		"a node that is none":        {"node.name", "A_b", "is not a DNS domain"},
		"a word for a boolean value": {"filters.drop-unknown", "yes", "allowed are true, false"},
	} {
		if err := key(t, x.key).Check(x.value); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
