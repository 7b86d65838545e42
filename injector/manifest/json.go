package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"
	corev1 "k8s.io/api/core/v1"
)

// isJSON reports whether the text is a sequence of JSON values.
func isJSON(text []byte) bool {
	decoder := json.NewDecoder(bytes.NewReader(text))
	for {
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}

// rewriteJSON returns nil if nothing changes.
func rewriteJSON(body []byte, change func(*Pod) (*corev1.Pod, error)) ([]byte, error) {
	var out bytes.Buffer
	var errs []error
	changed := false
	decoder := json.NewDecoder(bytes.NewReader(body))
	for decoder.More() {
		var object json.RawMessage
		if err := decoder.Decode(&object); err != nil {
			return nil, err
		}
		found, err := edits(object, change)
		if err == nil && len(found) > 0 {
			changed = true
			object, err = patched(object, found)
		}
		errs = append(errs, err)
		if indent := indentation(body); indent == "" {
			out.Write(object)
		} else if err := json.Indent(&out, object, "", indent); err != nil {
			return nil, err
		}
		out.WriteByte('\n')
	}
	if err := errors.Join(errs...); err != nil || !changed {
		return nil, err
	}
	return out.Bytes(), nil
}

// indentation returns the white space before the first key, if that is on a line of its own.
func indentation(body []byte) string {
	_, after, found := strings.Cut(string(body), "{\n")
	if !found {
		return ""
	}
	return after[:len(after)-len(strings.TrimLeft(after, " \t"))]
}

// patched applies the operations to an object. Keys keep their order.
func patched(object []byte, operations []operation) ([]byte, error) {
	text, err := json.Marshal(operations)
	if err != nil {
		return nil, err
	}
	patch, err := jsonpatch.DecodePatch(text)
	if err != nil {
		return nil, err
	}
	options := jsonpatch.NewApplyOptions()
	options.EnsurePathExistsOnAdd = true // a template may have no metadata
	options.EscapeHTML = false
	return patch.ApplyWithOptions(object, options)
}
