// Package patch computes the JSON patch (RFC 6902) between two states of a pod.
package patch

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
)

// Create returns the operations that change before to after, for the document that before was
// read from. That document may have fields that our version of the API does not know. Neither
// pod has them, so no operation names them. They survive, provided that every list element
// keeps its identity.
//
// A comparison by index does not ensure that. With a new first container, it would rewrite the
// known fields of the old first one and leave its unknown fields in the wrong element. So Create
// works in two steps. The first inserts, removes and moves whole elements until the lists have
// the same order; the second compares the fields.
func Create(before, after *corev1.Pod) ([]byte, error) {
	aligned := before.DeepCopy()
	patch := align(&aligned.Spec.Volumes, after.Spec.Volumes, "/spec/volumes", func(v *corev1.Volume) string { return v.Name })
	patch = append(patch, alignContainers(&aligned.Spec.InitContainers, after.Spec.InitContainers, "/spec/initContainers")...)
	patch = append(patch, alignContainers(&aligned.Spec.Containers, after.Spec.Containers, "/spec/containers")...)
	from, err := json.Marshal(aligned)
	if err != nil {
		return nil, err
	}
	to, err := json.Marshal(after)
	if err != nil {
		return nil, err
	}
	rest, err := jsonpatch.CreatePatch(from, to)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(rest, comparePaths)
	for i := range rest {
		patch = append(patch, &rest[i])
	}
	return json.Marshal(patch)
}

// operation is one element of a JSON patch.
type operation any

// move is the operation that the library lacks. A remove and an add instead would lose fields
// that our version of the API does not know.
type move struct {
	Op   string `json:"op"`
	From string `json:"from"`
	Path string `json:"path"`
}

// add and remove return pointers, because the library marshals only pointers to operations.
func add(path string, value any) operation {
	op := jsonpatch.NewOperation("add", path, value)
	return &op
}

func remove(path string) operation {
	op := jsonpatch.NewOperation("remove", path, nil)
	return &op
}

func alignContainers(list *[]corev1.Container, target []corev1.Container, path string) []operation {
	patch := align(list, target, path, func(c *corev1.Container) string { return c.Name })
	for i := range min(len(*list), len(target)) {
		c, at := &(*list)[i], fmt.Sprintf("%s/%d", path, i)
		if c.Name != target[i].Name {
			continue
		}
		patch = append(patch, align(&c.Env, target[i].Env, at+"/env", func(e *corev1.EnvVar) string { return e.Name })...)
		patch = append(patch, align(&c.VolumeMounts, target[i].VolumeMounts, at+"/volumeMounts", func(m *corev1.VolumeMount) string { return m.MountPath })...)
	}
	return patch
}

// align returns the operations that give list the elements and order of target, by key.
func align[T any](list *[]T, target []T, path string, key func(*T) string) []operation {
	switch {
	case len(*list) == 0 && len(target) == 0:
		return nil
	case len(*list) == 0:
		*list = target
		return []operation{add(path, target)}
	case len(target) == 0:
		*list = nil
		return []operation{remove(path)}
	}
	count := func(in []T, of *T) (n int) {
		for i := range in {
			if key(&in[i]) == key(of) {
				n++
			}
		}
		return n
	}
	var patch []operation
	for i := len(*list) - 1; i >= 0; i-- {
		// A key can occur twice: variables may have the same name.
		if element := &(*list)[i]; count(*list, element) > count(target, element) {
			patch = append(patch, remove(fmt.Sprintf("%s/%d", path, i)))
			*list = slices.Delete(*list, i, i+1)
		}
	}
	for i := range target {
		rest := (*list)[min(i, len(*list)):]
		at := slices.IndexFunc(rest, func(e T) bool { return key(&e) == key(&target[i]) })
		switch {
		case at < 0:
			patch = append(patch, add(fmt.Sprintf("%s/%d", path, i), target[i]))
			*list = slices.Insert(*list, i, target[i])
		case at > 0:
			patch = append(patch, move{Op: "move", From: fmt.Sprintf("%s/%d", path, i+at), Path: fmt.Sprintf("%s/%d", path, i)})
			element := (*list)[i+at]
			*list = slices.Insert(slices.Delete(*list, i+at, i+at+1), i, element)
		}
	}
	return patch
}

// comparePaths orders the operations, which the library finds by iterating over maps, so that
// the same pods always give the same patch. In one list, elements must be removed from the end
// backwards, and added at the end.
func comparePaths(a, b jsonpatch.Operation) int {
	left, right := strings.Split(a.Path, "/"), strings.Split(b.Path, "/")
	for i := range min(len(left), len(right)) {
		if left[i] == right[i] {
			continue
		}
		m, errLeft := strconv.Atoi(left[i])
		n, errRight := strconv.Atoi(right[i])
		if errLeft != nil || errRight != nil {
			return cmp.Compare(left[i], right[i])
		}
		last := i == len(left)-1 && i == len(right)-1
		if last && a.Operation == "remove" && b.Operation == "remove" {
			return n - m
		}
		return m - n
	}
	return len(left) - len(right)
}
