package manifest

import (
	"encoding/json"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// rewriteYAML returns nil if nothing changes. It reports whether the text was written again as a
// whole, because it could not be changed in place.
func rewriteYAML(body []byte, change func(*Pod) (*corev1.Pod, error)) (text []byte, rewritten bool, err error) {
	object, err := yaml.YAMLToJSON(body)
	if err != nil {
		return nil, false, err
	}
	found, err := edits(object, change)
	if err != nil || len(found) == 0 {
		return nil, false, err
	}
	want, err := patched(object, found)
	if err != nil {
		return nil, false, err
	}
	if text, err := inPlace(body, want); err == nil {
		return text, false, nil
	}
	text, err = yaml.JSONToYAML(want)
	return text, true, err
}

// passes is how often a text is edited: an edit of an anchored value also changes its aliases,
// which the next pass then writes out.
const passes = 3

// inPlace edits the text until kubectl's parser reads it as the wanted object, given as JSON.
func inPlace(text, wantJSON []byte) ([]byte, error) {
	var want any
	if err := json.Unmarshal(wantJSON, &want); err != nil {
		return nil, err
	}
	wanted, err := node(wantJSON)
	if err != nil {
		return nil, err
	}
	for range passes {
		converted, err := yaml.YAMLToJSON(text)
		if err != nil {
			return nil, err
		}
		var have any
		if err := json.Unmarshal(converted, &have); err != nil {
			return nil, err
		}
		if reflect.DeepEqual(have, want) {
			return text, nil
		}
		root, err := parse(text)
		if err != nil {
			return nil, err
		}
		positions, err := newLayout(text, root)
		if err != nil {
			return nil, err
		}
		e := editor{layout: positions, style: styleOf(text, root)}
		if err := e.value(root, have, want, wanted); err != nil {
			return nil, err
		}
		if text, err = e.apply(); err != nil {
			return nil, err
		}
	}
	return nil, errLayout
}
