package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"rockpool.dev/injector/patch"
)

// Rewrite calls change for each pod in the stream and returns the stream with the returned pods.
// change may return the given pod. The error joins all errors, each with its document and object;
// the returned stream is then nil. Rewrite calls rewritten, if it is not nil, with the number of each
// document that it could not change in place: that document is written again as a whole, without
// its comments.
func Rewrite(stream []byte, change func(*Pod) (*corev1.Pod, error), rewritten func(document int)) ([]byte, error) {
	var out bytes.Buffer
	var errs []error
	for i, d := range split(stream) {
		changed, written, err := d.rewrite(change)
		if err != nil {
			errs = append(errs, fmt.Errorf("document %d: %w", i+1, err))
		}
		if written && rewritten != nil {
			rewritten(i + 1)
		}
		out.Write(changed)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// document is a document of a stream.
type document struct {
	original  []byte
	separator []byte // its first line, such as "---\n"; may be empty
	body      []byte
}

// split splits a stream at the lines that begin a YAML document. Such a line cannot be part of a
// value, because multi-line values are indented.
func split(stream []byte) []document {
	var documents []document
	var current document
	for line := range bytes.Lines(stream) {
		rest, begins := bytes.CutPrefix(line, []byte("---"))
		if begins = begins && (len(rest) == 0 || strings.ContainsRune(" \t\r\n", rune(rest[0]))); !begins {
			current.body = append(current.body, line...)
			current.original = append(current.original, line...)
			continue
		}
		if len(current.original) > 0 {
			documents = append(documents, current)
		}
		if text := bytes.TrimSpace(rest); len(text) == 0 || text[0] == '#' {
			current = document{original: bytes.Clone(line), separator: bytes.Clone(line)}
		} else {
			current = document{original: bytes.Clone(line), separator: []byte("---\n"), body: bytes.Clone(rest[1:])}
		}
	}
	return append(documents, current)
}

// blank reports whether the document has only comments and directives.
func (d *document) blank() bool {
	for line := range bytes.Lines(d.body) {
		if text := bytes.TrimSpace(line); len(text) > 0 && text[0] != '#' && text[0] != '%' {
			return false
		}
	}
	return true
}

func (d *document) rewrite(change func(*Pod) (*corev1.Pod, error)) (text []byte, rewritten bool, err error) {
	if d.blank() {
		return d.original, false, nil
	}
	var body []byte
	if text := bytes.TrimSpace(d.body); text[0] == '{' && isJSON(text) {
		body, err = rewriteJSON(d.body, change)
	} else {
		body, rewritten, err = rewriteYAML(d.body, change)
	}
	if err != nil {
		return nil, false, err
	}
	if body == nil {
		return d.original, false, nil
	}
	return append(bytes.Clone(d.separator), body...), rewritten, nil
}

// edits returns the operations that change an object, given as JSON.
func edits(object []byte, change func(*Pod) (*corev1.Pod, error)) ([]operation, error) {
	pods, err := podsIn(object)
	if err != nil {
		return nil, err
	}
	var found []operation
	var errs []error
	for _, p := range pods {
		after, err := change(p)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p, err))
			continue
		}
		if equality.Semantic.DeepEqual(p.Pod, after) {
			continue
		}
		operations, err := operationsFor(p, after)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p, err))
		}
		found = append(found, operations...)
	}
	return found, errors.Join(errs...)
}

// operation is an operation of a JSON patch (RFC 6902).
type operation struct {
	Op    string          `json:"op"`
	Path  string          `json:"path"`
	From  string          `json:"from,omitempty"`
	Value json.RawMessage `json:"value,omitempty"`
}

// operationsFor returns the operations in the object of p that change p.Pod to after.
func operationsFor(p *Pod, after *corev1.Pod) ([]operation, error) {
	text, err := patch.Create(p.Pod, after)
	if err != nil {
		return nil, err
	}
	var operations []operation
	if err := json.Unmarshal(text, &operations); err != nil {
		return nil, err
	}
	if p.onlyAnnotations && len(after.Annotations) == 0 {
		operations = append(operations, operation{Op: "remove", Path: "/metadata"})
	}
	for i := range operations {
		o := &operations[i]
		o.Path = p.path + o.Path
		if o.From != "" {
			o.From = p.path + o.From
		}
	}
	return operations, nil
}
