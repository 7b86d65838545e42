package rule

import (
	"rockpool.dev/sidecar/api/wire"
)

// forwardKubeSvcTraffic shows the sidecar as the only endpoint of the API server's Service. An
// EndpointSlice of another family than the sidecar's address is left without endpoints.
func forwardKubeSvcTraffic(o *Object, c *Context) ([]byte, bool, error) {
	service, err := o.service()
	if err != nil || !service.isMaster() {
		return o.Raw, true, err
	}
	if o.Resource == Endpoints {
		raw, err := o.forwardSubsets(c)
		return raw, true, err
	}
	family, err := o.text(o.Raw, fieldAddressType)
	if err != nil {
		return nil, true, err
	}
	want := "IPv4"
	if c.Address.Addr().Is6() {
		want = "IPv6"
	}
	edit := only(o.Format.Merge(
		wire.MemberValue{Member: fieldAddresses, Value: o.Format.Quote(c.Address.Addr().String())},
		wire.MemberValue{Member: fieldConditions, Value: o.Format.Merge(
			wire.MemberValue{Member: fieldReady, Value: o.Format.Bool(true), Scalar: true})},
	))
	if family != want {
		edit = func([]byte) ([]byte, bool, error) { return nil, false, nil }
	}
	raw, err := o.Format.Replace(nil, o.Raw, fieldEndpoints, edit)
	if err == nil {
		raw, err = o.Format.Replace(nil, raw, fieldSlicePorts, o.setPort(fieldPort, c))
	}
	return raw, true, err
}

// forwardSubsets does the same for an Endpoints object: one subset remains, with one address.
func (o *Object) forwardSubsets(c *Context) ([]byte, error) {
	address := only(o.Format.Merge(wire.MemberValue{Member: fieldIP, Value: o.Format.Quote(c.Address.Addr().String())}))
	first := true
	return o.Format.Replace(nil, o.Raw, fieldSubsets, func(subset []byte) ([]byte, bool, error) {
		addresses, err := o.Format.First(subset, fieldReadyList)
		if err != nil || addresses == nil || !first {
			return nil, false, err
		}
		first = false
		subset, err = o.Format.Replace(nil, subset, fieldReadyList, address)
		if err == nil {
			subset, err = o.Format.Replace(nil, subset, fieldNotReady, func([]byte) ([]byte, bool, error) { return nil, false, nil })
		}
		if err == nil {
			subset, err = o.Format.Replace(nil, subset, fieldSubsetPorts, o.setPort(fieldSubsetPort, c))
		}
		return subset, true, err
	})
}

// serviceTopology leaves only those endpoints of a Service that its annotation allows: of this node,
// pool or zone. An object without endpoints that are left stays, empty.
func serviceTopology(o *Object, c *Context) ([]byte, bool, error) {
	if len(c.Services) == 0 {
		return o.Raw, true, nil
	}
	service, err := o.service()
	if err != nil {
		return o.Raw, true, err
	}
	topology := c.service(service).Topology
	if topology == "" {
		return o.Raw, true, nil
	}
	if o.Resource == Endpoints {
		raw, err := o.localSubsets(c, topology)
		return raw, true, err
	}
	dropped := false
	raw, err := o.Format.Replace(nil, o.Raw, fieldEndpoints, func(endpoint []byte) ([]byte, bool, error) {
		keep, err := o.belongs(endpoint, fieldNodeName, c, topology)
		dropped = dropped || !keep
		return endpoint, keep, err
	})
	if err != nil || !dropped {
		raw = o.Raw
	}
	return raw, true, err
}

// localSubsets does the same for an Endpoints object. Subsets that have no address left go, because
// validation allows none without (k8s.io/api/core/v1, EndpointSubset).
func (o *Object) localSubsets(c *Context, topology Topology) ([]byte, error) {
	dropped := false
	raw, err := o.Format.Replace(nil, o.Raw, fieldSubsets, func(subset []byte) ([]byte, bool, error) {
		left := 0
		for _, list := range []wire.Member{fieldReadyList, fieldNotReady} {
			edited, err := o.Format.Replace(nil, subset, list, func(address []byte) ([]byte, bool, error) {
				keep, err := o.belongs(address, fieldAddressNode, c, topology)
				dropped = dropped || !keep
				if keep {
					left++
				}
				return address, keep, err
			})
			if err != nil {
				return nil, false, err
			}
			subset = edited
		}
		return subset, left > 0, nil
	})
	if err != nil || !dropped {
		raw = o.Raw
	}
	return raw, err
}

// belongs reports whether an endpoint stays.
func (o *Object) belongs(endpoint []byte, nodeName wire.Member, c *Context, topology Topology) (bool, error) {
	node, err := o.bytes(endpoint, nodeName)
	if err != nil {
		return false, err
	}
	var zone []byte
	if o.Resource == EndpointSlices && topology == TopologyZone {
		if zone, err = o.bytes(endpoint, fieldZone); err != nil {
			return false, err
		}
	}
	switch c.Node.judge(node, zone, topology) {
	case here:
		return true, nil
	case elsewhere:
		return false, nil
	}
	return !c.DropUnknown, nil
}

// judge finds out whether an endpoint on a node and in a zone, each empty if it has none, belongs to
// this node, pool or zone. A node that is in no pool and no zone is one of its own.
func (n *Node) judge(node, zone []byte, topology Topology) verdict {
	if len(node) > 0 && string(node) == n.Name {
		return here
	}
	var group *Group
	switch {
	case topology == TopologyZone && n.Zone.Name != "":
		if len(zone) > 0 {
			return verdictOf(string(zone) == n.Zone.Name)
		}
		group = &n.Zone
	// In OpenYurt a zone is another word for a pool.
	case topology == TopologyPool, topology == TopologyZone && n.Pool.Name != "":
		group = &n.Pool
	case topology == TopologyZone:
		group = &n.Zone
		if n.Zone.Known && !n.Pool.Known {
			group = &n.Pool
		}
	}
	switch {
	case len(node) == 0 || n.Name == "" && (group == nil || group.Name == ""):
		return unknown
	case group == nil, group.Known && group.Name == "":
		return elsewhere // only this node belongs here
	case !group.Known:
		return unknown
	}
	return group.has(node)
}
