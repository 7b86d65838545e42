package rule

import (
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// Context is what filters know beside the object. It does not change.
type Context struct {
	// Address is where the sidecar answers in place of the API server.
	Address netip.AddrPort
	Node    Node
	// Services has the Services that mean something to filters. One that is missing means nothing,
	// or is not known.
	Services map[types.NamespacedName]Service
	// DropUnknown drops endpoints of which nobody knows whether they belong here.
	DropUnknown bool
}

// service returns what a Service means. The conversions in the index take no memory.
func (c *Context) service(r reference) Service {
	return c.Services[types.NamespacedName{Namespace: string(r.namespace), Name: string(r.name)}]
}

// Node is this node, and which other nodes belong to its pool and zone.
type Node struct {
	Name   string // empty: unknown
	Labels map[string]string
	Pool   Group
	Zone   Group
}

// Group is the pool or zone of this node.
type Group struct {
	// Known tells that Name is known. An empty Name says that the node is in no group.
	Known bool
	Name  string
	// Members and Patterns (of path.Match) have the nodes of the group, Complete that no other
	// node is in it.
	Members  map[string]struct{}
	Patterns []string
	Complete bool
}

// Equal reports whether two groups have the same nodes.
func (g *Group) Equal(other *Group) bool {
	return g.Known == other.Known && g.Name == other.Name && g.Complete == other.Complete &&
		maps.Equal(g.Members, other.Members) && slices.Equal(g.Patterns, other.Patterns)
}

// verdict is whether an endpoint belongs to this node, pool or zone.
type verdict int

const (
	unknown verdict = iota
	here
	elsewhere
)

func verdictOf(belongs bool) verdict {
	if belongs {
		return here
	}
	return elsewhere
}

// has finds out whether a node belongs to the group.
func (g *Group) has(node []byte) verdict {
	if _, ok := g.Members[string(node)]; ok {
		return here
	}
	for _, pattern := range g.Patterns {
		if ok, err := path.Match(pattern, string(node)); ok && err == nil {
			return here
		}
	}
	if g.Complete {
		return elsewhere
	}
	return unknown
}

// Topology is a value of the annotation of Services that limits their endpoints.
type Topology string

// The values of the annotation, as in OpenYurt.
const (
	TopologyNode Topology = "kubernetes.io/hostname"
	TopologyPool Topology = "openyurt.io/nodepool"
	TopologyZone Topology = "kubernetes.io/zone"
)

// Service is what a Service means to filters of its endpoints.
type Service struct {
	Topology  Topology // empty: none
	Discarded bool     // by discardcloudservice
	// Listens tells that it is a NodePort or a LoadBalancer that only some pools listen for.
	Listens bool
}

// annotationsTopology and the others are annotations of Services: OpenYurt's, and the alias.
var (
	annotationsTopology = []string{"rockpool.dev/topology-keys", "openyurt.io/topologyKeys"}
	annotationsDiscard  = []string{"rockpool.dev/discard", "svc.openyurt.io/discard"}
	annotationsListen   = []string{"rockpool.dev/nodeport-listen", "nodeport.openyurt.io/listen"}
)

// xTunnel is a Service of OpenYurt for its own tunnel. YurtHub discards it as well.
var xTunnel = types.NamespacedName{Namespace: "kube-system", Name: "x-tunnel-server-internal-svc"}

// ReadService finds out what a Service means to filters of its endpoints.
func ReadService(o *Object) (key types.NamespacedName, s Service, err error) {
	metadata, err := o.Format.First(o.Raw, fieldMetadata)
	if err != nil || metadata == nil {
		return key, s, err
	}
	if key, err = o.key(metadata); err != nil {
		return key, s, err
	}
	value, _, err := o.annotation(metadata, annotationsTopology)
	if err != nil {
		return key, s, err
	}
	for key := range strings.SplitSeq(value, ",") { // the first one that is known
		switch t := Topology(strings.TrimSpace(key)); t {
		case TopologyNode, TopologyPool, TopologyZone:
			s.Topology = t
		case "openyurt.io/zone":
			s.Topology = TopologyZone
		default:
			continue
		}
		break
	}
	kind, err := o.serviceType()
	if err != nil {
		return key, s, err
	}
	discard, err := o.asksForDiscard(metadata)
	if err != nil {
		return key, s, err
	}
	s.Discarded = key == xTunnel || discard && kind == typeLoadBalancer
	_, limited, err := o.annotation(metadata, annotationsListen)
	s.Listens = limited && isExternal(kind)
	return key, s, err
}

// annotation returns the first annotation that is set.
func (o *Object) annotation(metadata []byte, names []string) (value string, ok bool, err error) {
	for _, name := range names {
		entry, err := o.Format.Entry(metadata, fieldAnnotations, name)
		if err != nil {
			return "", false, err
		}
		if entry != nil {
			value, err = o.Format.Text(entry)
			return value, err == nil, err
		}
	}
	return "", false, nil
}

// asksForDiscard reports whether a Service has the annotation of discardcloudservice.
func (o *Object) asksForDiscard(metadata []byte) (bool, error) {
	value, _, err := o.annotation(metadata, annotationsDiscard)
	return value == "true", err
}

// Types of Services, of k8s.io/api/core/v1.
const (
	typeNodePort     = "NodePort"
	typeLoadBalancer = "LoadBalancer"
)

// isExternal reports whether nodes listen for Services of a type.
func isExternal(kind string) bool { return kind == typeNodePort || kind == typeLoadBalancer }

// serviceType returns the type of a Service, empty if only its metadata is there.
func (o *Object) serviceType() (string, error) {
	spec, err := o.Format.First(o.Raw, fieldSpec)
	if err != nil || spec == nil {
		return "", err
	}
	return o.text(spec, fieldType)
}
