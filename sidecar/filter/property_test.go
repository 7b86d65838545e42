package filter

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"rockpool.dev/sidecar/api/filters"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/filter/rule"
)

func parsePools(t testing.TB, text string) ([]filters.Pool, error) {
	t.Helper()
	return filters.ParsePools(text)
}

// expected filters the present state of a resource, by what the server knows, in one pass.
func expected(t testing.TB, s *server, f *Filter, resource string, format wire.Format) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := &knowledge{services: map[types.NamespacedName]rule.Service{}}
	e := encoding{t: t, format: format}
	for _, o := range s.objects["services"] {
		key, meaning, err := rule.ReadService(&rule.Object{Format: format, Resource: rule.Services, Raw: e.bare(o)})
		if err != nil {
			t.Fatal(err)
		}
		k.services[key] = meaning
	}
	if n := s.objects["nodes"]["/"+nodeName]; n != nil {
		k.node = n.GetLabels()
		if k.node == nil {
			k.node = map[string]string{}
		}
	}
	if pool := k.node[rule.LabelPool]; pool != "" {
		k.poolNodes = names{}
		for _, n := range s.objects["nodes"] {
			if n.GetLabels()[rule.LabelPool] == pool {
				k.poolNodes[n.GetName()] = struct{}{}
			}
		}
	}
	if zone := k.node[rule.LabelZone]; zone != "" {
		k.zoneNodes = names{}
		for _, n := range s.objects["nodes"] {
			if n.GetLabels()[rule.LabelZone] == zone {
				k.zoneNodes[n.GetName()] = struct{}{}
			}
		}
	}
	k.pools = map[string]names{}
	for _, o := range s.objects["nodepools"] {
		members := names{}
		for _, node := range o.(*nodePool).Status.Nodes {
			members[node] = struct{}{}
		}
		k.pools[o.GetName()] = members
	}
	current := f.current.Load()
	ctx := f.context(current, k)
	r := rule.Services
	if resource == "endpointslices" {
		r = rule.EndpointSlices
	}
	chain := current.chain(r, "informer/1")
	want := map[string]string{}
	for key, o := range s.objects[resource] {
		raw, keep := chain.Apply(&rule.Object{Format: format, Resource: r, Raw: e.bare(o)}, ctx, func(_ string, err error) { t.Error(err) })
		if keep {
			want[key] = string(raw)
		}
	}
	return want
}

// TestAFilteredStreamFoldedIsTheFilteredState is the property that a client relies on, for random
// changes of objects, annotations, memberships and settings, and for watches that break off.
func TestAFilteredStreamFoldedIsTheFilteredState(t *testing.T) {
	histories := 12
	if testing.Short() {
		histories = 3
	}
	for seed := range uint64(histories) {
		for _, format := range formats {
			t.Run(fmt.Sprintf("history %d in %s", seed, format.MediaType()), func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 1))
				s := newServer(t)
				s.put(newNode(nodeName, "p"))
				s.put(newPool("p", nodeName))
				f := newFilter(t, s)
				asks := []string{"", initialEvents}[seed%2]
				slicesClient := startClient(t, &client{filter: f, path: pathSlices, format: format, asks: asks})
				servicesClient := startClient(t, &client{filter: f, path: pathServices, format: format, asks: asks})
				for round := range 12 {
					for range 1 + random.IntN(5) {
						step(t, random, s, f, slicesClient, servicesClient)
					}
					what := fmt.Sprintf("round %d", round)
					slicesClient.holds(what+", slices", expected(t, s, f, "endpointslices", format))
					servicesClient.holds(what+", services", expected(t, s, f, "services", format))
				}
			})
		}
	}
}

// step makes one random change.
func step(t *testing.T, random *rand.Rand, s *server, f *Filter, clients ...*client) {
	pick := func(all ...string) string { return all[random.IntN(len(all))] }
	service := pick("a", "b", "c", "d", "e", "f")
	someNodes := func() []string {
		nodes := []string{nodeName, "edge-2", "edge-3", "edge-4"}
		random.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
		return slices.Clone(nodes[:random.IntN(5)])
	}
	switch random.IntN(13) {
	case 0, 1, 2, 3:
		s.put(newSlice(service+pick("-1", "-2"), service, someNodes()...))
	case 4:
		s.remove("endpointslices", "shop/"+service+pick("-1", "-2"))
	case 5, 6, 7:
		annotations := topology(pick("kubernetes.io/hostname", "openyurt.io/nodepool", "kubernetes.io/zone", "", "x"))
		if random.IntN(3) == 0 {
			annotations["svc.openyurt.io/discard"] = "true"
		}
		if random.IntN(3) == 0 {
			annotations["nodeport.openyurt.io/listen"] = pick("p", "q", "*", "-p")
		}
		s.put(newService(service, annotations))
	case 8:
		s.remove("services", "shop/"+service)
	case 9:
		s.put(inZone(newNode(pick(nodeName, "edge-2", "edge-3"), pick("p", "q", "")), pick("east", "west", "")))
	case 10:
		next := choose(t, pick("servicetopology,discardcloudservice", "servicetopology", "discardcloudservice,nodeportisolation", "nodeportisolation,servicetopology"))
		next.DropUnknown = random.IntN(2) == 0
		f.Set(next)
	case 11:
		clients[random.IntN(len(clients))].breakOff()
	case 12:
		s.put(newPool(pick("p", "q"), someNodes()...))
	}
}
