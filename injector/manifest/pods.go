package manifest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/json"
)

// Pod is a pod, or the template of pods, in a stream.
type Pod struct {
	// Namespace of the object. May be empty.
	Namespace string
	// Controller is the workload whose template the pod is, in the form of an owner reference of
	// its pods. Nil for a pod.
	Controller *metav1.OwnerReference
	// Annotations of the object: for a workload, not those of its pods.
	Annotations map[string]string
	// Pod is the pod itself, or the content of the template. It must not be changed.
	Pod *corev1.Pod

	kind, name string
	path       string // a JSON pointer
	// onlyAnnotations means that the metadata of the template has only annotations.
	onlyAnnotations bool
}

// String names the object for people: Deployment shop/web.
func (p *Pod) String() string {
	switch {
	case p.name == "":
		return p.kind + " without a name"
	case p.Namespace == "":
		return p.kind + " " + p.name
	}
	return p.kind + " " + p.Namespace + "/" + p.name
}

// templates has the path of the pod template for each kind of workload.
var templates = map[schema.GroupKind][]string{
	{Group: "", Kind: "Pod"}:                   {},
	{Group: "", Kind: "ReplicationController"}: {"spec", "template"},
	{Group: "apps", Kind: "DaemonSet"}:         {"spec", "template"},
	{Group: "apps", Kind: "Deployment"}:        {"spec", "template"},
	{Group: "apps", Kind: "ReplicaSet"}:        {"spec", "template"},
	{Group: "apps", Kind: "StatefulSet"}:       {"spec", "template"},
	{Group: "batch", Kind: "CronJob"}:          {"spec", "jobTemplate", "spec", "template"},
	{Group: "batch", Kind: "Job"}:              {"spec", "template"},
}

// podsIn finds the pods of an object in JSON, also in Lists.
func podsIn(object []byte) ([]*Pod, error) {
	var tree any
	if err := json.Unmarshal(object, &tree); err != nil {
		return nil, err
	}
	return walk(tree, "")
}

func walk(tree any, path string) ([]*Pod, error) {
	object, ok := tree.(map[string]any)
	if !ok {
		return nil, nil // not a Kubernetes object
	}
	kind, _ := object["kind"].(string)
	apiVersion, _ := object["apiVersion"].(string)
	if items, ok := object["items"].([]any); ok && strings.HasSuffix(kind, "List") {
		var pods []*Pod
		var errs []error
		for i, item := range items {
			typeItem(item, strings.TrimSuffix(kind, "List"), apiVersion)
			inItem, err := walk(item, path+"/items/"+strconv.Itoa(i))
			pods, errs = append(pods, inItem...), append(errs, err)
		}
		return pods, errors.Join(errs...)
	}
	group, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return nil, nil
	}
	steps, ok := templates[schema.GroupKind{Group: group.Group, Kind: kind}]
	if !ok {
		return nil, nil
	}
	if err := notTexts(object, steps); err != nil {
		name, _, _ := unstructured.NestedString(object, "metadata", "name")
		namespace, _, _ := unstructured.NestedString(object, "metadata", "namespace")
		return nil, fmt.Errorf("%s: %w", &Pod{Namespace: namespace, kind: kind, name: name}, err)
	}
	pod, err := podAt(object, steps)
	var meta struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
	}
	err = errors.Join(err, into(object, &meta))
	p := &Pod{Namespace: meta.Metadata.Namespace, Annotations: meta.Metadata.Annotations, Pod: pod, kind: kind, name: meta.Metadata.Name, path: path}
	if p.name == "" {
		p.name = meta.Metadata.GenerateName
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	if len(steps) > 0 {
		p.path += "/" + strings.Join(steps, "/")
		p.Controller = &metav1.OwnerReference{APIVersion: apiVersion, Kind: kind, Name: strings.TrimRight(p.name, "-.")}
		p.onlyAnnotations = hasOnlyAnnotations(object, steps)
	}
	return []*Pod{p}, nil
}

// typeItem gives an item of a typed list, such as a DeploymentList, the kind that it leaves out.
func typeItem(item any, kind, apiVersion string) {
	object, ok := item.(map[string]any)
	if !ok || kind == "" || object["kind"] != nil || object["apiVersion"] != nil {
		return
	}
	object["kind"], object["apiVersion"] = kind, apiVersion
}

func hasOnlyAnnotations(object map[string]any, steps []string) bool {
	metadata, _, err := unstructured.NestedMap(object, append(steps[:len(steps):len(steps)], "metadata")...)
	_, annotated := metadata["annotations"]
	return err == nil && annotated && len(metadata) == 1
}

// notTexts returns an error for each annotation or label of an object, and of the template below
// it, that is no text: in YAML, true and 1 need quotes.
func notTexts(object map[string]any, steps []string) error {
	var errs []error
	for _, at := range [][]string{nil, steps} {
		if at != nil && len(at) == 0 {
			continue // a pod is its own template
		}
		for _, field := range []string{"annotations", "labels"} {
			path := slices.Concat(at, []string{"metadata", field})
			values, _, _ := unstructured.NestedFieldNoCopy(object, path...)
			all, _ := values.(map[string]any)
			for _, key := range slices.Sorted(maps.Keys(all)) {
				switch value := all[key].(type) {
				case string, nil:
				case map[string]any, []any:
					errs = append(errs, fmt.Errorf("%s: %s: must be a text", strings.Join(path, "."), key))
				default:
					errs = append(errs, fmt.Errorf("%s: %s: must be a text, not %v; put the value in quotes", strings.Join(path, "."), key, value))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// podAt decodes the pod or template below object.
func podAt(object map[string]any, steps []string) (*corev1.Pod, error) {
	for i, step := range steps {
		next, ok := object[step].(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s: missing", strings.Join(steps[:i+1], "."))
		}
		object = next
	}
	// Decoding would turn null into an empty element, and a patch for it would not apply.
	if path := nullIn(object, strings.Join(steps, ".")); path != "" {
		return nil, fmt.Errorf("%s: null in a list", path)
	}
	pod := &corev1.Pod{}
	if err := into(object, pod); err != nil {
		return nil, err
	}
	if len(pod.Spec.Containers) == 0 {
		return nil, fmt.Errorf("%s: missing", strings.Join(append(steps[:len(steps):len(steps)], "spec", "containers"), "."))
	}
	return pod, nil
}

// nullIn returns the path of the first list element that is null, or "".
func nullIn(tree any, path string) string {
	switch tree := tree.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(tree)) {
			if found := nullIn(tree[key], strings.TrimPrefix(path+"."+key, ".")); found != "" {
				return found
			}
		}
	case []any:
		for i, element := range tree {
			at := fmt.Sprintf("%s[%d]", path, i)
			if element == nil {
				return at
			}
			if found := nullIn(element, at); found != "" {
				return found
			}
		}
	}
	return ""
}

// into decodes a tree. Field names are case-sensitive, like those of the API server.
func into(tree, value any) error {
	text, err := json.Marshal(tree)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, value)
}
