package convert

import (
	"cmp"
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
)

//go:embed schema.txt
var schemaText string

// builtin returns the kinds of k8s.io/api. Its first call parses the schema.
var builtin = sync.OnceValue(func() map[Kind]*message {
	kinds, err := parse(schemaText)
	if err != nil { // cannot happen: the tests parse the schema too
		panic(err)
	}
	return kinds
})

// message is a type with fields: an object in JSON, a message in protobuf.
type message struct {
	fields  []*field // in the order of JSON
	numbers []*field // in the order of protobuf
}

// field is a field of a message.
type field struct {
	name    string // in JSON; inline: the message's fields are members of the parent's object
	number  protowire.Number
	shape   shape
	leaf    leaf
	message *message // of leafNested
	omit    bool     // JSON leaves out the zero value
}

const inline = "."

// shape is how often a field may occur, and how an absent field is encoded.
type shape uint8

const (
	single   shape = iota // once; if absent, zero in both encodings
	optional              // once or not at all
	list                  // any number of times; if absent, null in JSON
	mapping               // likewise, as entries of a map
)

// leaf is the type of a value.
type leaf uint8

const (
	leafNested leaf = iota // a message
	leafText               // a string
	leafBytes              // base64 in JSON
	leafBoolean
	leafInteger
	leafQuantity    // resource.Quantity: a string in JSON, a message with a string in protobuf
	leafTime        // metav1.Time: whole seconds
	leafMicroTime   // metav1.MicroTime
	leafIntOrString // intstr.IntOrString
	leafRaw         // JSON embedded in protobuf: metav1.FieldsV1, runtime.RawExtension
	leafTexts       // a list of strings that is a message of its own in protobuf
)

var leaves = map[string]leaf{
	"text": leafText, "bytes": leafBytes, "boolean": leafBoolean, "integer": leafInteger,
	"quantity": leafQuantity, "time": leafTime, "microtime": leafMicroTime,
	"intorstring": leafIntOrString, "raw": leafRaw, "texts": leafTexts,
}

// parse parses a schema. Its lines are
//
//	kind APIVERSION KIND TYPE
//	type TYPE
//	NUMBER NAME SHAPE+(LEAF|TYPE) [omit]
//
// where a field belongs to the type above it.
func parse(schema string) (map[Kind]*message, error) {
	kinds, types := map[Kind]*message{}, map[string]*message{}
	typeNamed := func(name string) *message {
		if types[name] == nil {
			types[name] = &message{}
		}
		return types[name]
	}
	var current *message
	for line := range strings.Lines(schema) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || words[0] == "#":
		case words[0] == "kind" && len(words) == 4:
			kinds[Kind{words[1], words[2]}] = typeNamed(words[3])
		case words[0] == "type" && len(words) == 2:
			current = typeNamed(words[1])
		case current != nil && len(words) >= 3:
			number, err := strconv.ParseInt(words[0], 10, 32)
			if err != nil {
				return nil, fmt.Errorf("schema: %q: %w", line, err)
			}
			f := &field{name: words[1], number: protowire.Number(number), omit: len(words) > 3}
			rest := f.parseShape(words[2])
			var ok bool
			if f.leaf, ok = leaves[rest]; !ok {
				f.message = typeNamed(rest)
			}
			current.fields = append(current.fields, f)
		default:
			return nil, fmt.Errorf("schema: %q", line)
		}
	}
	for _, m := range types {
		m.numbers = slices.SortedFunc(slices.Values(m.fields), func(a, b *field) int {
			return cmp.Compare(a.number, b.number)
		})
	}
	return kinds, nil
}

func (f *field) parseShape(word string) (rest string) {
	for prefix, s := range map[string]shape{"*": optional, "[]": list, "map:": mapping} {
		if rest, ok := strings.CutPrefix(word, prefix); ok {
			f.shape = s
			return rest
		}
	}
	return word
}
