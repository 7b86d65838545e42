package webhook

import (
	"encoding/json"
	"fmt"
	"slices"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
)

// createPatch returns the JSON patch (RFC 6902) that leads from before to after, for the
// document that before was read from. That document may have fields that our version of
// the API does not know; they are not in either pod, so no operation names them, and they
// survive, provided that every list element keeps its identity.
//
// A comparison by index would not see to that: with a container put in front, it would
// rewrite the first one's known fields and leave its unknown ones where they do not
// belong. Hence two steps: operations that insert and move whole elements until the
// lists are in line, then the comparison.
func createPatch(before, after *corev1.Pod) ([]byte, error) {
	aligned := before.DeepCopy()
	patch := slices.Concat(
		alignContainers(&aligned.Spec.InitContainers, after.Spec.InitContainers, "/spec/initContainers"),
		alignEnv(aligned.Spec.InitContainers, after.Spec.InitContainers, "/spec/initContainers"),
		alignEnv(aligned.Spec.Containers, after.Spec.Containers, "/spec/containers"),
	)
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
	for i := range rest {
		patch = append(patch, &rest[i])
	}
	return json.Marshal(patch)
}

// operation is one element of a JSON patch.
type operation any

// move is the operation that the library does not have. Removing and adding instead would
// lose what our version of the API does not know.
type move struct {
	Op   string `json:"op"`
	From string `json:"from"`
	Path string `json:"path"`
}

// add is a pointer because the library marshals its operations only as such.
func add(path string, value any) operation {
	op := jsonpatch.NewOperation("add", path, value)
	return &op
}

// alignContainers brings list into the order of target, by name. An empty list is left to
// the comparison, which adds it as a whole.
func alignContainers(list *[]corev1.Container, target []corev1.Container, path string) []operation {
	if len(*list) == 0 {
		return nil
	}
	var patch []operation
	for i, want := range target {
		at := slices.IndexFunc(*list, func(c corev1.Container) bool { return c.Name == want.Name })
		switch {
		case at < 0:
			patch = append(patch, add(fmt.Sprintf("%s/%d", path, i), want))
			*list = slices.Insert(*list, i, *want.DeepCopy())
		case at != i:
			patch = append(patch, move{Op: "move", From: fmt.Sprintf("%s/%d", path, at), Path: fmt.Sprintf("%s/%d", path, i)})
			c := (*list)[at]
			*list = slices.Insert(slices.Delete(*list, at, at+1), i, c)
		}
	}
	return patch
}

// alignEnv inserts the variables that target has more, in front, where package inject
// puts them. An empty list is left to the comparison.
func alignEnv(list, target []corev1.Container, path string) []operation {
	var patch []operation
	for i := range min(len(list), len(target)) {
		have, want := list[i].Env, target[i].Env
		if len(have) == 0 || len(want) <= len(have) {
			continue
		}
		inserted := want[:len(want)-len(have)]
		for j, v := range inserted {
			patch = append(patch, add(fmt.Sprintf("%s/%d/env/%d", path, i, j), v))
		}
		list[i].Env = slices.Concat(inserted, have)
	}
	return patch
}
