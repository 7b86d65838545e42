package rule

import (
	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"rockpool.dev/sidecar/api/wire"
)

// Resources that filters are about.
var (
	Services       = schema.GroupResource{Resource: "services"}
	Endpoints      = schema.GroupResource{Resource: "endpoints"}
	EndpointSlices = schema.GroupResource{Group: "discovery.k8s.io", Resource: "endpointslices"}
)

// Object is one object of an answer. Raw is an item of a list or wire.Format's Inner of an object that
// stands alone. Of an object that is there with its metadata alone, other fields seem to be empty.
type Object struct {
	Format   wire.Format
	Resource schema.GroupResource
	Raw      []byte

	owner reference // no filter changes metadata, so it is found once
}

// reference names a Service by parts of the object that belongs to it. So it takes no memory.
type reference struct {
	namespace, name []byte
	known           bool // the object was read
}

// The fields that filters read or change. Their numbers are those of generated.proto in
// k8s.io/apimachinery/pkg/apis/meta/v1, k8s.io/api/core/v1 and k8s.io/api/discovery/v1.
var (
	fieldMetadata    = member("metadata", 1) // of every object
	fieldName        = member("name", 1)     // ObjectMeta
	fieldNamespace   = member("namespace", 3)
	fieldVersion     = member("resourceVersion", 6)
	fieldLabels      = member("labels", 11)
	fieldAnnotations = member("annotations", 12)

	fieldStatus = member("status", 3) // NodePool, which exists in JSON only
	fieldNodes  = repeated("nodes", 0)

	fieldSpec       = member("spec", 2)      // Service
	fieldClusterIP  = member("clusterIP", 3) // ServiceSpec
	fieldType       = member("type", 4)
	fieldClusterIPs = repeated("clusterIPs", 18)
	fieldPorts      = repeated("ports", 1)
	fieldPortName   = member("name", 1) // ServicePort, EndpointPort
	fieldPort       = member("port", 3)

	fieldEndpoints   = repeated("endpoints", 2) // EndpointSlice
	fieldSlicePorts  = repeated("ports", 3)
	fieldAddressType = member("addressType", 4)
	fieldAddresses   = repeated("addresses", 1) // Endpoint
	fieldConditions  = member("conditions", 2)  // Endpoint
	fieldReady       = member("ready", 1)       // EndpointConditions
	fieldNodeName    = member("nodeName", 6)    // Endpoint
	fieldZone        = member("zone", 7)        // Endpoint
	fieldSubsets     = repeated("subsets", 2)   // Endpoints
	fieldReadyList   = repeated("addresses", 1) // EndpointSubset
	fieldNotReady    = repeated("notReadyAddresses", 2)
	fieldSubsetPorts = repeated("ports", 3)
	fieldIP          = member("ip", 1) // EndpointAddress
	fieldAddressNode = member("nodeName", 4)
	fieldSubsetPort  = member("port", 2) // EndpointPort of core/v1
)

func member(name string, number protowire.Number) wire.Member {
	return wire.Member{Name: name, Number: number}
}

func repeated(name string, number protowire.Number) wire.Member {
	return wire.Member{Name: name, Number: number, Repeated: true}
}

// LabelServiceName is the label of an EndpointSlice with the name of its Service.
const LabelServiceName = "kubernetes.io/service-name"

// text returns the text of a member, empty if it is not set.
func (o *Object) text(message []byte, m wire.Member) (string, error) {
	value, err := o.Format.First(message, m)
	if err != nil || value == nil {
		return "", err
	}
	return o.Format.Text(value)
}

// bytes is text as a part of the message where it can be.
func (o *Object) bytes(message []byte, m wire.Member) ([]byte, error) {
	value, err := o.Format.First(message, m)
	if err != nil || value == nil {
		return nil, err
	}
	return o.Format.TextBytes(value)
}

// Key returns namespace and name.
func (o *Object) Key() (types.NamespacedName, error) {
	key, _, err := o.Identity()
	return key, err
}

// Identity returns namespace and name, and the resourceVersion.
func (o *Object) Identity() (key types.NamespacedName, version string, err error) {
	metadata, err := o.Format.First(o.Raw, fieldMetadata)
	if err != nil || metadata == nil {
		return key, "", err
	}
	if key, err = o.key(metadata); err == nil {
		version, err = o.text(metadata, fieldVersion)
	}
	return key, version, err
}

func (o *Object) key(metadata []byte) (key types.NamespacedName, err error) {
	if metadata == nil {
		return key, nil
	}
	if key.Name, err = o.text(metadata, fieldName); err == nil {
		key.Namespace, err = o.text(metadata, fieldNamespace)
	}
	return key, err
}

// service returns the Service of an EndpointSlice or Endpoints object. The name is empty if it has
// none.
func (o *Object) service() (reference, error) {
	if o.owner.known {
		return o.owner, nil
	}
	metadata, err := o.Format.First(o.Raw, fieldMetadata)
	if err != nil || metadata == nil {
		return reference{}, err
	}
	var name []byte
	if o.Resource == Endpoints {
		name, err = o.Format.First(metadata, fieldName)
	} else {
		name, err = o.Format.Entry(metadata, fieldLabels, LabelServiceName)
	}
	r := reference{known: true}
	if err == nil && name != nil {
		r.name, err = o.Format.TextBytes(name)
	}
	if err == nil && len(r.name) > 0 {
		r.namespace, err = o.bytes(metadata, fieldNamespace)
	}
	if err == nil {
		o.owner = r
	}
	return r, err
}

// isMaster reports whether the object is of the API server's own Service.
func isMaster(key types.NamespacedName) bool { return key == master }

func (r reference) isMaster() bool {
	return string(r.namespace) == master.Namespace && string(r.name) == master.Name
}

// master is the API server's own Service.
var master = types.NamespacedName{Namespace: "default", Name: "kubernetes"}

// replace is Format.Replace for a message inside a message, whose fields are within.
func (o *Object) replace(message []byte, within []wire.Member, m wire.Member, edit func([]byte) ([]byte, bool, error)) ([]byte, error) {
	if len(within) == 0 {
		return o.Format.Replace(nil, message, m, edit)
	}
	return o.Format.Replace(nil, message, within[0], func(inner []byte) ([]byte, bool, error) {
		edited, err := o.replace(inner, within[1:], m, edit)
		return edited, true, err
	})
}

// set returns an edit that replaces a value.
func set(value []byte) func([]byte) ([]byte, bool, error) {
	return func([]byte) ([]byte, bool, error) { return value, true, nil }
}

// only returns an edit that replaces the first of several values, and leaves out the others.
func only(value []byte) func([]byte) ([]byte, bool, error) {
	first := true
	return func([]byte) ([]byte, bool, error) {
		keep := first
		first = false
		return value, keep, nil
	}
}
