package filter

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"rockpool.dev/sidecar/filter/rule"
)

// names is a set of names of nodes.
type names = map[string]struct{}

// knowledge is what the API server has told a follower. It does not change.
type knowledge struct {
	services map[types.NamespacedName]rule.Service
	// node has the labels of this node; nil: they are unknown.
	node map[string]string
	// poolNodes and zoneNodes are the nodes with the label of this node's pool and zone; nil: unknown.
	poolNodes, zoneNodes names
	// pools has the nodes of NodePools.
	pools map[string]names
}

// context returns what filters know by the settings and by what a follower knows.
func (f *Filter) context(s *settings, k *knowledge) *rule.Context {
	c := &rule.Context{
		Address: f.Address, Services: k.services, DropUnknown: s.DropUnknown,
		Node: rule.Node{Name: f.NodeName, Labels: k.node},
	}
	c.Node.Pool = poolOf(f.NodeName, s, k)
	c.Node.Zone = zoneOf(s, k)
	return c
}

// poolOf returns the pool of a node. What the API server says goes before what settings say. A node
// without the label, that no setting puts into a pool, is in none.
func poolOf(node string, s *settings, k *knowledge) (g rule.Group) {
	g.Name = poolName(node, s, k)
	g.Known = g.Name != "" || k.node != nil || k.pools != nil && node != ""
	if g.Name == "" {
		return g
	}
	if k.poolNodes != nil {
		g.Members, g.Complete = k.poolNodes, true
		return g
	}
	if nodes, ok := k.pools[g.Name]; ok {
		g.Members, g.Complete = nodes, true
		return g
	}
	for _, pool := range s.Pools {
		if pool.Name == g.Name {
			g.Patterns, g.Complete = append(g.Patterns, pool.Nodes...), true
		}
	}
	return g
}

func poolName(node string, s *settings, k *knowledge) string {
	if name := k.node[rule.LabelPool]; name != "" {
		return name
	}
	if node != "" {
		for _, name := range slices.Sorted(maps.Keys(k.pools)) {
			if _, ok := k.pools[name][node]; ok {
				return name
			}
		}
	}
	if s.Pool != "" {
		return s.Pool
	}
	for _, pool := range s.Pools {
		if node != "" && pool.Has(node) {
			return pool.Name
		}
	}
	return ""
}

// zoneOf returns the zone of this node likewise.
func zoneOf(s *settings, k *knowledge) (g rule.Group) {
	if g.Name = k.node[rule.LabelZone]; g.Name == "" {
		g.Name = s.Zone
	}
	g.Known = g.Name != "" || k.node != nil
	if g.Name != "" && k.zoneNodes != nil {
		g.Members, g.Complete = k.zoneNodes, true
	}
	return g
}

// observe shows in the metrics what is known of the membership of this node.
func observe(n *rule.Node) {
	for kind, known := range map[string]bool{
		"node": n.Name != "", "pool": n.Pool.Known, "zone": n.Zone.Known,
		"pool-nodes": n.Pool.Complete || n.Pool.Known && n.Pool.Name == "",
		"zone-nodes": n.Zone.Complete || n.Zone.Known && n.Zone.Name == "",
	} {
		value := 0.0
		if known {
			value = 1
		}
		membershipKnown.WithLabelValues(kind).Set(value)
	}
}
