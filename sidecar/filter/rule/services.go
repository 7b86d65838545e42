package rule

import (
	"strings"

	"rockpool.dev/sidecar/api/wire"
)

// portHTTPS is the name of the API server's port in its Service and endpoints.
const portHTTPS = "https"

// masterService shows the sidecar's address in the API server's Service: clusterIP, clusterIPs, and
// the port named https. With metadata alone there is nothing to change.
func masterService(o *Object, c *Context) ([]byte, bool, error) {
	if key, err := o.Key(); err != nil || !isMaster(key) {
		return o.Raw, true, err
	}
	address := o.Format.Quote(c.Address.Addr().String())
	spec := []wire.Member{fieldSpec}
	raw, err := o.replace(o.Raw, spec, fieldClusterIP, set(address))
	if err == nil {
		raw, err = o.replace(raw, spec, fieldClusterIPs, only(address))
	}
	if err == nil {
		raw, err = o.replace(raw, spec, fieldPorts, o.setPort(fieldPort, c))
	}
	return raw, true, err
}

// setPort returns an edit of ports that gives the one named https the sidecar's port.
func (o *Object) setPort(field wire.Member, c *Context) func([]byte) ([]byte, bool, error) {
	return func(port []byte) ([]byte, bool, error) {
		if name, err := o.text(port, fieldPortName); err != nil || name != portHTTPS {
			return port, true, err
		}
		edited, err := o.Format.Replace(nil, port, field, set(o.Format.Int(int64(c.Address.Port()))))
		return edited, true, err
	}
}

// discardCloudService leaves out Services of type LoadBalancer that are for the cloud alone, and
// their endpoints. What a Service means that is there with its metadata alone is known elsewhere; it
// is kept if not.
func discardCloudService(o *Object, c *Context) ([]byte, bool, error) {
	if o.Resource != Services {
		service, err := o.service()
		return o.Raw, err != nil || !c.service(service).Discarded, err
	}
	metadata, err := o.Format.First(o.Raw, fieldMetadata)
	if err != nil || metadata == nil {
		return o.Raw, true, err
	}
	key, err := o.key(metadata)
	if err != nil || key == xTunnel {
		return o.Raw, err != nil, err
	}
	discard, err := o.asksForDiscard(metadata)
	if err != nil || !discard {
		return o.Raw, true, err
	}
	kind, err := o.serviceType()
	if err == nil && kind == "" {
		return o.Raw, !c.Services[key].Discarded, nil
	}
	return o.Raw, kind != typeLoadBalancer, err
}

// nodePortIsolation leaves out Services of type NodePort and LoadBalancer that do not listen in the
// pool of this node. In a node that is in no pool, or whose pool is unknown, all are kept. Of Services
// that are there with their metadata alone, those go whose type is known elsewhere.
func nodePortIsolation(o *Object, c *Context) ([]byte, bool, error) {
	if c.Node.Pool.Name == "" {
		return o.Raw, true, nil
	}
	metadata, err := o.Format.First(o.Raw, fieldMetadata)
	if err != nil || metadata == nil {
		return o.Raw, true, err
	}
	value, ok, err := o.annotation(metadata, annotationsListen)
	if err != nil || !ok || listens(value, c.Node.Pool.Name) {
		return o.Raw, true, err
	}
	kind, err := o.serviceType()
	if err != nil {
		return o.Raw, true, err
	}
	if kind == "" {
		key, err := o.key(metadata)
		return o.Raw, !c.Services[key].Listens, err
	}
	return o.Raw, !isExternal(kind), nil
}

// listens reads the annotation nodeport.openyurt.io/listen: names of pools, * for all, and a minus
// before a pool that is excepted. Of a pool that is named twice, the first entry counts.
func listens(list, pool string) bool {
	all := false
	for entry := range strings.SplitSeq(list, ",") {
		switch strings.TrimSpace(entry) {
		case pool:
			return true
		case "-" + pool:
			return false
		case "*":
			all = true
		}
	}
	return all
}
