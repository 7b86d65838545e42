package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
)

// kind is a resource of the model.
type kind struct {
	group, version, resource, name string
	namespaced                     bool
	subresources                   []string
}

// The kinds. A namespace has its finalizers in its spec, and a Deployment has subresources.
var (
	configMaps  = &kind{version: "v1", resource: "configmaps", name: "ConfigMap", namespaced: true}
	deployments = &kind{group: "apps", version: "v1", resource: "deployments", name: "Deployment", namespaced: true, subresources: []string{"status", "scale"}}
	namespaces  = &kind{version: "v1", resource: "namespaces", name: "Namespace"}
	kinds       = []*kind{configMaps, deployments, namespaces}
)

func (k *kind) gvk(suffix string) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: k.group, Version: k.version, Kind: k.name + suffix}
}

// key names an object.
type key struct {
	kind            *kind
	namespace, name string
}

func (k key) String() string {
	if k.namespace == "" {
		return k.kind.resource + "/" + k.name
	}
	return k.kind.resource + "/" + k.namespace + "/" + k.name
}

// object is the state of an object. Objects are compared with ==.
type object struct {
	key
	uid, version  string
	label         string // the value of the label "tier"
	value, status int    // what programs write, through the object and through a subresource
	held          bool   // by a finalizer
	terminating   bool
	padding       int // bytes
}

func (o object) String() string {
	out := fmt.Sprintf("%s@%s (uid %s, tier %s, value %d, status %d", o.key, o.version, o.uid, o.label, o.value, o.status)
	if o.terminating {
		out += ", terminating"
	}
	return out + ")"
}

// metadata is the part of an object that its metadata shows.
func (o object) metadata() object {
	o.status = 0
	if o.kind == namespaces {
		o.held = false
	} else {
		o.value = 0
	}
	return o
}

// typed is the object as Kubernetes has it, without its kind and apiVersion.
func (o object) typed() runtime.Object {
	m := metav1.ObjectMeta{Namespace: o.namespace, Name: o.name, UID: types.UID(o.uid), ResourceVersion: o.version}
	if o.label != "" {
		m.Labels = map[string]string{"tier": o.label}
	}
	if o.padding > 0 {
		m.Annotations = map[string]string{"padding": strings.Repeat("x", o.padding)}
	}
	if o.terminating {
		m.DeletionTimestamp = &metav1.Time{Time: epoch}
	}
	if o.held && o.kind != namespaces {
		m.Finalizers = []string{"model/held"}
	}
	switch o.kind {
	case configMaps:
		return &corev1.ConfigMap{ObjectMeta: m, Data: map[string]string{"value": strconv.Itoa(o.value)}}
	case deployments:
		replicas := int32(o.value)
		return &appsv1.Deployment{ObjectMeta: m, Spec: appsv1.DeploymentSpec{Replicas: &replicas}, Status: appsv1.DeploymentStatus{Replicas: int32(o.status)}}
	}
	if m.Annotations == nil {
		m.Annotations = map[string]string{}
	}
	m.Annotations["value"] = strconv.Itoa(o.value)
	ns := &corev1.Namespace{ObjectMeta: m}
	if o.held {
		ns.Spec.Finalizers = []corev1.FinalizerName{corev1.FinalizerKubernetes}
	}
	return ns
}

// objectOf is the inverse of typed.
func objectOf(k *kind, from runtime.Object) (object, error) {
	m, err := meta.Accessor(from)
	if err != nil {
		return object{}, err
	}
	o := object{
		key: key{k, m.GetNamespace(), m.GetName()}, uid: string(m.GetUID()), version: m.GetResourceVersion(), label: m.GetLabels()["tier"],
		terminating: m.GetDeletionTimestamp() != nil, held: len(m.GetFinalizers()) > 0, padding: len(m.GetAnnotations()["padding"]),
	}
	value := m.GetAnnotations()["value"]
	switch from := from.(type) {
	case *corev1.ConfigMap:
		value = from.Data["value"]
	case *appsv1.Deployment:
		o.value, o.status = int(*from.Spec.Replicas), int(from.Status.Replicas)
	case *corev1.Namespace:
		o.held = len(from.Spec.Finalizers) > 0
	}
	if value != "" {
		o.value, err = strconv.Atoi(value)
	}
	return o, err
}

// form is a form of answers.
type form int

const (
	inJSON form = iota
	inProtobuf
	metadataInJSON
	metadataInProtobuf
	asTable // or in JSON, as the server likes
	inCBOR  // which the sidecar cannot read
	formCount
)

func (f form) String() string {
	return [...]string{"JSON", "protobuf", "metadata in JSON", "metadata in protobuf", "Table", "CBOR"}[f]
}

func (f form) isMetadata() bool {
	return f == metadataInJSON || f == metadataInProtobuf || f == asTable
}

// opaque reports whether the sidecar need not understand what answers in this form say.
func (f form) opaque() bool { return f == inCBOR }

func (f form) mediaType() string {
	switch f {
	case inProtobuf, metadataInProtobuf:
		return runtime.ContentTypeProtobuf
	case inCBOR:
		return runtime.ContentTypeCBOR
	}
	return runtime.ContentTypeJSON
}

// accept is the Accept header of a request for this form.
func (f form) accept(list bool) string {
	switch {
	case f == asTable: // as kubectl asks
		return f.mediaType() + ";as=Table;g=meta.k8s.io;v=v1,application/json"
	case f.isMetadata() && list:
		return f.mediaType() + ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
	case f.isMetadata():
		return f.mediaType() + ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	}
	return f.mediaType()
}

var (
	scheme       = runtime.NewScheme()
	toProtobuf   = protobuf.NewSerializer(scheme, scheme)
	deserializer = serializer.NewCodecFactory(scheme).UniversalDeserializer()
)

func init() {
	utilruntime.Must(corev1.AddToScheme(scheme))
	utilruntime.Must(appsv1.AddToScheme(scheme))
	utilruntime.Must(metav1.AddMetaToScheme(scheme))
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
}

// encode encodes an object of Kubernetes, or a list.
func encode(f form, gvk schema.GroupVersionKind, o runtime.Object) []byte {
	o.GetObjectKind().SetGroupVersionKind(gvk)
	var out bytes.Buffer
	var err error
	switch f.mediaType() {
	case runtime.ContentTypeProtobuf:
		err = toProtobuf.Encode(o, &out)
	case runtime.ContentTypeCBOR:
		out.WriteString("\xd9\xd9\xf7 a body in CBOR")
	default:
		err = json.NewEncoder(&out).Encode(o)
	}
	utilruntime.Must(err)
	return out.Bytes()
}

var (
	partial     = schema.GroupVersionKind{Group: "meta.k8s.io", Version: "v1", Kind: "PartialObjectMetadata"}
	partialList = schema.GroupVersionKind{Group: "meta.k8s.io", Version: "v1", Kind: "PartialObjectMetadataList"}
	tableKind   = schema.GroupVersionKind{Group: "meta.k8s.io", Version: "v1", Kind: "Table"}
)

func partialOf(o object) *metav1.PartialObjectMetadata {
	m, err := meta.Accessor(o.typed())
	utilruntime.Must(err)
	p := meta.AsPartialObjectMetadata(m)
	p.SetGroupVersionKind(partial)
	return p
}

// encode encodes an object alone.
func (o object) encode(f form) []byte {
	switch {
	case f == asTable:
		return encodeTable(metav1.ListMeta{ResourceVersion: o.version}, []object{o})
	case f.isMetadata():
		return encode(f, partial, partialOf(o))
	}
	return encode(f, o.kind.gvk(""), o.typed())
}

// encodeList encodes a list.
func encodeList(k *kind, f form, m metav1.ListMeta, objects []object) []byte {
	switch {
	case f == asTable:
		return encodeTable(m, objects)
	case f.isMetadata():
		list := &metav1.PartialObjectMetadataList{ListMeta: m, Items: []metav1.PartialObjectMetadata{}}
		for _, o := range objects {
			list.Items = append(list.Items, *partialOf(o))
		}
		return encode(f, partialList, list)
	}
	list, err := scheme.New(k.gvk("List"))
	utilruntime.Must(err)
	items := []runtime.Object{}
	for _, o := range objects {
		items = append(items, o.typed())
	}
	utilruntime.Must(meta.SetList(list, items))
	accessor, err := meta.ListAccessor(list)
	utilruntime.Must(err)
	accessor.SetResourceVersion(m.ResourceVersion)
	accessor.SetContinue(m.Continue)
	accessor.SetRemainingItemCount(m.RemainingItemCount)
	return encode(f, k.gvk("List"), list)
}

func encodeTable(m metav1.ListMeta, objects []object) []byte {
	table := &metav1.Table{ListMeta: m, ColumnDefinitions: []metav1.TableColumnDefinition{}, Rows: []metav1.TableRow{}}
	for _, o := range objects {
		raw := encode(metadataInJSON, partial, partialOf(o))
		table.Rows = append(table.Rows, metav1.TableRow{Cells: []any{o.name}, Object: runtime.RawExtension{Raw: raw}})
	}
	return encode(inJSON, tableKind, table)
}

// decode reads an answer: an object alone, or a list with its version.
func decode(k *kind, raw []byte) (objects []object, version string, err error) {
	answer, _, err := deserializer.Decode(raw, nil, nil)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %q", err, raw)
	}
	all := []runtime.Object{answer}
	if list, err := meta.ListAccessor(answer); err == nil {
		version = list.GetResourceVersion()
	}
	switch table, isTable := answer.(*metav1.Table); {
	case isTable:
		all = nil
		for _, row := range table.Rows {
			o, _, err := deserializer.Decode(row.Object.Raw, nil, nil)
			if err != nil {
				return nil, "", err
			}
			all = append(all, o)
		}
	case meta.IsListType(answer):
		if all, err = meta.ExtractList(answer); err != nil {
			return nil, "", err
		}
	}
	for _, from := range all {
		o, err := objectOf(k, from)
		if err != nil {
			return nil, "", err
		}
		objects = append(objects, o)
	}
	return objects, version, nil
}

// isTable reports whether an answer to a request in form asTable is one.
func isTable(raw []byte) bool { return bytes.Contains(raw, []byte(`"columnDefinitions"`)) }

// encodeStatus encodes a refusal, or the success of a deletion.
func encodeStatus(f form, status *metav1.Status) []byte {
	return encode(f, schema.GroupVersionKind{Version: "v1", Kind: "Status"}, status)
}
