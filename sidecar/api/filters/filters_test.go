package filters

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rockpool.dev/sidecar/api/agent"
)

func TestTheDefaultsAreValid(t *testing.T) {
	for _, name := range Names() {
		if _, err := agent.Parse(DefaultAgents(name)); err != nil || DefaultAgents(name) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhichFilterAppliesToWhichClient(t *testing.T) {
	for _, x := range []struct{ name, choice, agents, userAgent, filter, want string }{
		{"a default client", "", "", "CoreDNS/1.12", ServiceTopology, "yes"},
		{"another client", "", "", "traefik/v3", ServiceTopology, "no"},
		{"a client that the cluster adds, as in yurt-hub-cfg", "", "traefik,nginx", "traefik/v3", ServiceTopology, "yes"},
		{"a default client beside an added one", "", "traefik", "coredns/1.12", ServiceTopology, "yes"},
		{"a default client that is taken away", "", "traefik,!coredns", "coredns/1.12", ServiceTopology, "no"},
		{"all defaults taken away", "", "!*", "coredns/1.12", ServiceTopology, "no"},
		{"all defaults taken away but one client added", "", "!*,traefik", "traefik/v3", ServiceTopology, "yes"},
		{"an exception beside no defaults", "", "!*,!traefik", "curl", ServiceTopology, "no"},
		{"a filter that the pod adds", "servicetopology", "", "anything", ServiceTopology, "yes"},
		{"a filter that the pod takes away", "-servicetopology", "traefik", "traefik/v3", ServiceTopology, "no"},
		{"the pod's choice of another filter", "masterservice,-keep", "", "coredns/1", ServiceTopology, "yes"},
	} {
		choice, err := ParseChoice(x.choice)
		if err != nil {
			t.Fatal(err)
		}
		s := Settings{Choice: choice}
		if x.agents != "" {
			selector, err := ParseAgents(x.filter, x.agents)
			if err != nil {
				t.Fatal(err)
			}
			s.Agents = map[string]agent.Selector{x.filter: selector}
		}
		if got := s.Enabled(x.filter, x.userAgent); got != (x.want == "yes") {
			t.Errorf("%s: %v", x.name, got)
		}
	}
}

func TestProblemsOfSettingsSayWhatIsAllowed(t *testing.T) {
	problem := func(_ any, err error) error { return err }
	for name, x := range map[string]struct {
		err  error
		want string
	}{
		"an unknown filter":           {problem(ParseChoice("topology")), `"topology" is not a filter; allowed are discardcloudservice`},
		"a filter added and taken":    {problem(ParseChoice("keep,-keep")), "both added and taken away"},
		"a client that is none":       {problem(ParseAgents(Keep, "a/b")), "a/b"},
		"pools without names":         {problem(ParsePools("a,b")), "POOL=NODE,NODE is allowed"},
		"a pattern that is none":      {problem(ParsePools("a=[")), "not the name of a node"},
		"a rule without resource":     {problem(ParseRules("a == b")), "line 1:"},
		"a rule without expression":   {problem(ParseRules("services: true\npods:")), "line 2:"},
		"two rules of one resource":   {problem(ParseRules("pods: true\npods: false")), "has a rule already, in line 1"},
		"a resource in capitals":      {problem(ParseRules("Pods: true")), "is not a rule"},
		"a label that is not allowed": {CheckLabelValue("a b"), "is not the value of a label"},
	} {
		if x.err == nil || !strings.Contains(x.err.Error(), x.want) {
			t.Errorf("%s: %v", name, x.err)
		}
	}
}

func TestPools(t *testing.T) {
	pools, err := ParsePools("hangzhou = edge-1, edge-2 ;\nshanghai=sh-*")
	if want := []Pool{{"hangzhou", []string{"edge-1", "edge-2"}}, {"shanghai", []string{"sh-*"}}}; err != nil || !cmp.Equal(want, pools) {
		t.Errorf("%v, %v", pools, err)
	}
	if !pools[1].Has("sh-7") || pools[1].Has("edge-1") || pools[0].Has("edge-10") {
		t.Error("wrong members")
	}
}

func TestRules(t *testing.T) {
	rules, err := ParseRules("services: a ||\n  b: c\n\nendpointslices.discovery.k8s.io: true")
	want := []Rule{
		{schema.GroupResource{Resource: "services"}, "a ||\nb: c", 1},
		{schema.GroupResource{Group: "discovery.k8s.io", Resource: "endpointslices"}, "true", 4},
	}
	if err != nil || !cmp.Equal(want, rules) {
		t.Errorf("%v, %v", rules, err)
	}
}

func FuzzSettings(f *testing.F) {
	f.Add("servicetopology,-keep")
	f.Add("a=b;c=d*")
	f.Add("pods: x\n y")
	f.Fuzz(func(_ *testing.T, text string) {
		_, _ = ParseChoice(text)
		_, _ = ParseAgents(ServiceTopology, text)
		_, _ = ParsePools(text)
		_, _ = ParseRules(text)
	})
}
