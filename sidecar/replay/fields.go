package replay

import (
	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/fields"
	operator "k8s.io/apimachinery/pkg/selection"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// condition is one requirement of a field selector: a field has, or does not have, a value.
type condition struct {
	label string // the selector's name of the field
	// fields are where the value is: in the first that is not empty. There are none for the labels
	// of metadata, and for those that are always empty.
	fields []wire.Field
	value  string
	not    bool
}

// Labels that all resources can be selected by.
const (
	nameLabel      = "metadata.name"
	namespaceLabel = "metadata.namespace"
)

// parseConditions parses a canonical field selector for a resource. It returns false for a field by
// which the API server does not select: its response to that is unknown.
func parseConditions(info request.Info) (out []condition, ok bool) {
	selector, err := fields.ParseSelector(info.FieldSelector)
	if err != nil {
		return nil, false
	}
	byName, namespaced := selectable(info.Group, info.Version, info.Resource)
	for _, req := range selector.Requirements() {
		c := condition{label: req.Field, value: req.Value, not: req.Operator == operator.NotEquals}
		switch {
		case req.Field == nameLabel, req.Field == namespaceLabel && namespaced:
		default:
			if c.fields, ok = byName[req.Field]; !ok {
				return nil, false
			}
		}
		out = append(out, c)
	}
	return out, true
}

// ofMetadata reports whether an object's metadata is enough to evaluate the condition.
func (c *condition) ofMetadata() bool { return c.label == nameLabel || c.label == namespaceLabel }

// matches reports whether an object meets the condition.
func (c *condition) matches(format wire.Format, o store.Object) (bool, error) {
	value := ""
	switch c.label {
	case nameLabel:
		value = o.Name
	case namespaceLabel:
		value = o.Namespace
	default:
		for _, f := range c.fields {
			var err error
			if value, err = format.Lookup(o.Payload, f); err != nil {
				return false, err
			}
			if value != "" {
				break
			}
		}
	}
	return (value == c.value) != c.not, nil
}

// selectable returns the fields, besides metadata.name, by which the API server selects objects of
// a resource, and whether metadata.namespace is one of them. No published schema has them. They are
// in the code of Kubernetes 1.36: pkg/apis/*/v1/conversion.go has the fields that a client may use,
// and pkg/registry/*/*/strategy.go their values. For example, the second has status.replicas of
// ReplicaSets, but the first does not allow it.
func selectable(group, version, resource string) (byName map[string][]wire.Field, namespaced bool) {
	switch group + "/" + version + "/" + resource {
	case "/v1/pods":
		node := text("spec", 2, "nodeName", 10)
		return map[string][]wire.Field{
			"spec.nodeName":            node,
			"spec.host":                node, // its old name
			"spec.restartPolicy":       text("spec", 2, "restartPolicy", 3),
			"spec.schedulerName":       text("spec", 2, "schedulerName", 19),
			"spec.serviceAccountName":  text("spec", 2, "serviceAccountName", 8),
			"spec.hostNetwork":         field(wire.Boolean, "spec", 2, "hostNetwork", 11),
			"status.phase":             text("status", 3, "phase", 1),
			"status.podIP":             text("status", 3, "podIP", 6),
			"status.podIPs":            nil, // allowed, and always empty
			"status.nominatedNodeName": text("status", 3, "nominatedNodeName", 11),
		}, true
	case "/v1/events":
		component := text1("reportingComponent", 14)
		return eventFields("involvedObject", 2, map[string][]wire.Field{
			"reason":             text1("reason", 3),
			"source":             append(text("source", 5, "component", 1), component...),
			"type":               text1("type", 9),
			"reportingComponent": component,
		}), true
	case "events.k8s.io/v1/events":
		return eventFields("regarding", 8, map[string][]wire.Field{
			"reason":              text1("reason", 7),
			"type":                text1("type", 11),
			"reportingController": text1("reportingController", 4),
		}), true
	case "/v1/nodes":
		return map[string][]wire.Field{"spec.unschedulable": field(wire.Boolean, "spec", 2, "unschedulable", 4)}, false
	case "/v1/namespaces":
		return map[string][]wire.Field{"status.phase": text("status", 3, "phase", 1)}, false
	case "/v1/secrets":
		return map[string][]wire.Field{"type": text1("type", 3)}, true
	case "/v1/services":
		return map[string][]wire.Field{
			"spec.clusterIP": text("spec", 2, "clusterIP", 3),
			"spec.type":      text("spec", 2, "type", 4),
		}, true
	case "/v1/replicationcontrollers":
		return map[string][]wire.Field{"status.replicas": field(wire.Integer, "status", 3, "replicas", 1)}, true
	case "batch/v1/jobs":
		return map[string][]wire.Field{"status.successful": field(wire.Integer, "status", 3, "succeeded", 5)}, true
	case "certificates.k8s.io/v1/certificatesigningrequests":
		return map[string][]wire.Field{"spec.signerName": text("spec", 2, "signerName", 7)}, false
	case "certificates.k8s.io/v1beta1/podcertificaterequests", "certificates.k8s.io/v1alpha1/podcertificaterequests":
		return map[string][]wire.Field{
			"spec.signerName": text("spec", 2, "signerName", 1),
			"spec.podName":    text("spec", 2, "podName", 2),
			"spec.nodeName":   text("spec", 2, "nodeName", 6),
		}, false
	case "certificates.k8s.io/v1beta1/clustertrustbundles", "certificates.k8s.io/v1alpha1/clustertrustbundles":
		return map[string][]wire.Field{"spec.signerName": text("spec", 2, "signerName", 1)}, false
	case "resource.k8s.io/v1/resourceslices", "resource.k8s.io/v1beta2/resourceslices", "resource.k8s.io/v1beta1/resourceslices":
		return map[string][]wire.Field{
			"spec.driver":   text("spec", 2, "driver", 1),
			"spec.nodeName": text("spec", 2, "nodeName", 3),
		}, false
	}
	return nil, true
}

// eventFields adds the fields of the object that an event is about.
func eventFields(about string, number protowire.Number, byName map[string][]wire.Field) map[string][]wire.Field {
	for member, n := range map[string]protowire.Number{"kind": 1, "namespace": 2, "name": 3, "uid": 4, "apiVersion": 5, "resourceVersion": 6, "fieldPath": 7} {
		byName[about+"."+member] = text(about, number, member, n)
	}
	return byName
}

// text is a field of a message in the object; text1 is a field of the object itself.
func text(outer string, outerNumber protowire.Number, name string, number protowire.Number) []wire.Field {
	return field(wire.Text, outer, outerNumber, name, number)
}

func text1(name string, number protowire.Number) []wire.Field {
	return []wire.Field{{Members: []string{name}, Numbers: []protowire.Number{number}}}
}

func field(t wire.FieldType, outer string, outerNumber protowire.Number, name string, number protowire.Number) []wire.Field {
	return []wire.Field{{Members: []string{outer, name}, Numbers: []protowire.Number{outerNumber, number}, Type: t}}
}
