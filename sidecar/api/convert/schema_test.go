package convert

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
)

var update = flag.Bool("update", false, "write schema.txt from the Go types of k8s.io/api")

// TestSchemaMatchesTheGoTypes also writes it: go test ./sidecar/api/convert -run Schema -update
func TestSchemaMatchesTheGoTypes(t *testing.T) {
	want, err := describe(kinds())
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("schema.txt", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(strings.Split(want, "\n"), strings.Split(schemaText, "\n")); d != "" {
		t.Fatalf("run go test ./sidecar/api/convert -run Schema -update: %s", d)
	}
}

// kinds returns all kinds of objects: those with metadata.
func kinds() map[schema.GroupVersionKind]reflect.Type {
	out := map[schema.GroupVersionKind]reflect.Type{metav1.SchemeGroupVersion.WithKind("PartialObjectMetadata"): reflect.TypeFor[metav1.PartialObjectMetadata]()}
	for kind, t := range scheme.Scheme.AllKnownTypes() {
		if _, ok := t.FieldByName("ObjectMeta"); ok && kind.Version != runtime.APIVersionInternal && kind.Kind != metav1.WatchEventKind {
			out[kind] = t
		}
	}
	return out
}

// describe writes the schema of kinds from the tags of their Go types.
func describe(kinds map[schema.GroupVersionKind]reflect.Type) (string, error) {
	var out strings.Builder
	out.WriteString("# The kinds of k8s.io/api: their fields in JSON, in that order, and in protobuf.\n# Written by schema_test.go.\n")
	todo := map[string]reflect.Type{}
	for _, kind := range slices.SortedFunc(maps.Keys(kinds), func(a, b schema.GroupVersionKind) int { return strings.Compare(a.String(), b.String()) }) {
		fmt.Fprintf(&out, "kind %s %s %s\n", kind.GroupVersion(), kind.Kind, typeName(kinds[kind]))
		todo[typeName(kinds[kind])] = kinds[kind]
	}
	done := map[string]string{}
	for len(todo) > 0 {
		for name, t := range todo {
			delete(todo, name)
			lines := "type " + name + "\n"
			for i := range t.NumField() {
				line, message, err := describeField(t.Field(i))
				if err != nil {
					return "", fmt.Errorf("%s.%s: %w", t, t.Field(i).Name, err)
				}
				lines += line
				if message != nil && done[typeName(message)] == "" {
					todo[typeName(message)] = message
				}
			}
			done[name] = lines
		}
	}
	for _, name := range slices.Sorted(maps.Keys(done)) {
		out.WriteString(done[name])
	}
	return out.String(), nil
}

func typeName(t reflect.Type) string {
	path := strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(t.PkgPath(), "k8s.io/api/"), "k8s.io/apimachinery/pkg/apis/"), "k8s.io/apimachinery/pkg/")
	return path + "." + t.Name()
}

var leafNames = map[reflect.Type]string{
	reflect.TypeFor[metav1.Time]():          "time",
	reflect.TypeFor[metav1.MicroTime]():     "microtime",
	reflect.TypeFor[resource.Quantity]():    "quantity",
	reflect.TypeFor[intstr.IntOrString]():   "intorstring",
	reflect.TypeFor[metav1.FieldsV1]():      "raw",
	reflect.TypeFor[runtime.RawExtension](): "raw",
}

// describeField returns the line of a field, and the message type of its value, if any.
func describeField(f reflect.StructField) (line string, message reflect.Type, err error) {
	if f.Type == reflect.TypeFor[metav1.TypeMeta]() {
		return "", nil, nil
	}
	tag := strings.Split(f.Tag.Get("json"), ",")
	proto := strings.Split(f.Tag.Get("protobuf"), ",")
	if len(proto) < 3 {
		return "", nil, fmt.Errorf("invalid protobuf tag %q", f.Tag.Get("protobuf"))
	}
	name, shape, t, omit := tag[0], "", f.Type, ""
	switch {
	case name == "-":
		return "", nil, fmt.Errorf("the field is not in JSON")
	case name == "" && f.Anonymous:
		name = "."
	case name == "":
		return "", nil, fmt.Errorf("no name in JSON")
	}
	switch t.Kind() {
	case reflect.Pointer:
		shape, t = "*", t.Elem()
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			return "", nil, fmt.Errorf("the keys are not strings")
		}
		shape, t = "map:", t.Elem()
	case reflect.Slice:
		if t.Elem().Kind() != reflect.Uint8 && !isMessage(t) {
			shape, t = "[]", t.Elem()
		}
	}
	_, isLeaf := leafNames[t]
	for _, option := range tag[1:] {
		isStruct := shape == "" && t.Kind() == reflect.Struct
		if option == "omitzero" && (!isLeaf || leafNames[t] != "time") {
			return "", nil, fmt.Errorf("omitzero of a type other than Time")
		}
		if option == "omitzero" || (option == "omitempty" && !isStruct) {
			omit = " omit"
		}
	}
	kind, ok := leafNames[t]
	if !ok {
		switch {
		case t.Kind() == reflect.Struct:
			kind, message = typeName(t), t
		case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String && isMessage(t):
			kind = "texts"
		case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
			kind = "bytes"
		case t.Kind() == reflect.String:
			kind = "text"
		case t.Kind() == reflect.Bool:
			kind = "boolean"
		case t.Kind() == reflect.Int32, t.Kind() == reflect.Int64:
			kind = "integer"
		default:
			return "", nil, fmt.Errorf("unsupported type %s of kind %s", f.Type, t.Kind())
		}
	}
	if name == "." && (shape != "" || message == nil) {
		return "", nil, fmt.Errorf("an embedded field that is not a message")
	}
	return fmt.Sprintf("%s %s %s%s%s\n", proto[1], name, shape, kind, omit), message, nil
}

// isMessage reports whether a type encodes itself in protobuf.
func isMessage(t reflect.Type) bool {
	_, ok := reflect.PointerTo(t).MethodByName("MarshalToSizedBuffer")
	return ok
}
