package rule

import "rockpool.dev/sidecar/api/wire"

// Labels of Nodes with their pool and their zone.
const (
	LabelPool = "apps.openyurt.io/nodepool"
	LabelZone = "topology.kubernetes.io/zone"
)

// ReadLabels returns the labels of an object.
func ReadLabels(o *Object) (map[string]string, error) {
	metadata, err := o.Format.First(o.Raw, fieldMetadata)
	if err != nil || metadata == nil {
		return nil, err
	}
	return o.Format.Entries(metadata, fieldLabels)
}

// ReadPool returns the nodes of a NodePool, status.nodes
// (https://openyurt.io/docs/user-manuals/node-pool-management/create_a_node_pool).
func ReadPool(o *Object) (nodes map[string]struct{}, err error) {
	nodes = map[string]struct{}{}
	if o.Format != wire.JSON { // a custom resource exists in JSON only
		return nodes, nil
	}
	status, err := o.Format.First(o.Raw, fieldStatus)
	if err != nil || status == nil {
		return nodes, err
	}
	err = o.Format.Each(status, fieldNodes, func(value []byte) error {
		name, err := o.Format.Text(value)
		nodes[name] = struct{}{}
		return err
	})
	return nodes, err
}
